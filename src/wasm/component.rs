//! An app that was loaded: compiled, with what it may ask for, ready to be instantiated.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gristmill_engine::runner::Counters;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, ResourceLimiter, Store};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::pages::HugePages;

/// What apps export, and may ask for.
pub(super) const WIT: &str = include_str!("app.wit");
/// The one interface that is there for them.
const HOST: &str = "gristmill:app/host@0.1.0";
/// What an app cannot do without.
const NEEDED: &str = "map";
/// What it can do without.
const OPTIONAL: [&str; 4] = ["begin", "combine", "reduce", "finish"];

/// Entries that the tables of an instance may have.
const ENTRIES: usize = 1 << 20;
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Counters that a task may have, and bytes of their names.
const MOST_COUNTERS: (usize, usize) = (1000, 256);
/// Lines that a task may say, and bytes of each.
const MOST_LINES: (usize, usize) = (1000, 4 << 10);

/// How much a task may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of memory.
    pub(super) memory: u64,
    /// For a call of one function.
    pub(super) time: Duration,
}

/// What an instance has beside its own.
pub(super) struct Held {
    pub(super) counters: Counters,
    pub(super) status: Option<String>,
    /// Lines that nobody has taken yet.
    pub(super) lines: Vec<String>,
    said: usize,
    /// Bytes of all memories, and the most that there may be.
    memory: (usize, usize),
    /// Entries of all tables.
    entries: usize,
    /// Bytes that it wanted and did not get.
    pub(super) denied: Option<usize>,
}

impl Held {
    fn say(&mut self, mut line: String) {
        let (lines, bytes) = MOST_LINES;
        if self.said < lines {
            line.truncate(line.floor_char_boundary(bytes));
            self.lines.push(line);
        } else if self.said == lines {
            self.lines.push("it says more than is shown".into());
        }
        self.said = self.said.saturating_add(1);
    }

    fn count(&mut self, group: &str, name: &str, amount: i64) {
        let (most, bytes) = MOST_COUNTERS;
        let mut name = format!("{group}:{name}");
        name.truncate(name.floor_char_boundary(bytes));
        if self.counters.len() < most || self.counters.contains_key(&name) {
            let sum = self.counters.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
}

impl ResourceLimiter for Held {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let (held, most) = self.memory;
        let wanted = held.saturating_sub(current).saturating_add(desired);
        let granted = wanted <= most;
        if granted {
            self.memory.0 = wanted;
        } else {
            self.denied = Some(wanted);
        }
        Ok(granted)
    }
    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.entries.saturating_sub(current).saturating_add(desired);
        let granted = wanted <= ENTRIES;
        if granted {
            self.entries = wanted;
        }
        Ok(granted)
    }
    // A component of several modules has an instance for each, and one for what adapts them.
    fn instances(&self) -> usize {
        64
    }
    fn tables(&self) -> usize {
        64
    }
    fn memories(&self) -> usize {
        4
    }
}

/// An app that was loaded.
pub(super) struct App {
    pub(super) engine: Engine,
    pub(super) instance: InstancePre<Held>,
    pub(super) limits: Limits,
    pub(super) has_combine: bool,
    pub(super) has_reduce: bool,
    /// Counts time while the app is there.
    _clock: Clock,
}

impl App {
    /// Compiles a component, or a module as one.
    ///
    /// # Errors
    /// What is wrong with it, in a line.
    pub(super) fn load(bytes: &[u8], limits: Limits) -> Result<Self, String> {
        let failed = |e: wasmtime::Error| one_line(&format!("{e:#}"));
        let made;
        let bytes = match bytes {
            // A module has version 1 and no layer.
            [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
                made = of_module(bytes)?;
                &made
            }
            [b'\0', b'a', b's', b'm', ..] => bytes,
            _ => return Err("it is neither a component nor a module of WebAssembly".into()),
        };
        let mut config = Config::new();
        config.wasm_component_model(true).epoch_interruption(true).cache(cache());
        // What an instance begins with is copied into its memory: only pages of its own are huge.
        config.with_host_memory(Arc::new(HugePages)).memory_init_cow(false);
        let engine = Engine::new(&config).map_err(failed)?;
        let component = Component::from_binary(&engine, bytes).map_err(failed)?;
        let mut linker: Linker<Held> = Linker::new(&engine);
        offer(&mut linker).map_err(failed)?;
        let kind = component.component_type();
        if let Some((name, _)) = kind.imports(&engine).find(|(name, _)| *name != HOST) {
            let advice = "build it without a system, as for wasm32-unknown-unknown, or with --stub-wasi";
            return Err(format!("it asks for {}, which no app is given; {advice}", one_line(name)));
        }
        let has = |name: &str| component.get_export_index(None, name).is_some();
        if !has(NEEDED) {
            return Err(format!("it exports no function {NEEDED}; see docs/wasm.md"));
        }
        let [_, has_combine, has_reduce, _] = OPTIONAL.map(has);
        let instance = linker.instantiate_pre(&component).map_err(failed)?;
        let clock = Clock::begin(engine.clone()).map_err(|e| format!("its clock cannot be started: {e}"))?;
        Ok(Self { engine, instance, limits, has_combine, has_reduce, _clock: clock })
    }

    /// Memory and all else for an instance.
    pub(super) fn store(&self) -> Store<Held> {
        let most = usize::try_from(self.limits.memory).unwrap_or(usize::MAX);
        let held = Held {
            counters: Counters::new(),
            status: None,
            lines: Vec::new(),
            said: 0,
            memory: (0, most),
            entries: 0,
            denied: None,
        };
        let mut store = Store::new(&self.engine, held);
        store.limiter(|held| held);
        store.epoch_deadline_trap();
        store
    }

    /// Ticks that a call may take.
    pub(super) fn ticks(&self) -> u64 {
        (self.limits.time.as_millis() / TICK.as_millis()) as u64 + 1
    }
}

/// Compiled apps of earlier runs, where there is a place for them: an app of 18 MB, as interpreters have in them, takes 16 s
/// to compile. What is kept is called by the digest of the app and of what compiled it, and is bounded (wasmtime's cache:
/// 512 MiB, the oldest go first).
fn cache() -> Option<Cache> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))?;
    let mut config = CacheConfig::new();
    config.with_directory(folder.is_absolute().then(|| folder.join("gristmill/wasm"))?);
    // Without one, apps are compiled each time.
    Cache::new(config).ok()
}

/// What apps may ask for.
fn offer(linker: &mut Linker<Held>) -> wasmtime::Result<()> {
    let mut host = linker.instance(HOST)?;
    host.func_wrap("counter", |mut store, (group, name, amount): (String, String, i64)| {
        let held: &mut Held = store.data_mut();
        held.count(&group, &name, amount);
        Ok(())
    })?;
    host.func_wrap("status", |mut store, (text,): (String,)| {
        let held: &mut Held = store.data_mut();
        held.status = Some(text.chars().take(MOST_LINES.1).collect());
        Ok(())
    })?;
    host.func_wrap("log", |mut store, (line,): (String,)| {
        let held: &mut Held = store.data_mut();
        held.say(line);
        Ok(())
    })
}

/// A component of a module whose functions are as the canonical ABI has them.
fn of_module(module: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |e: &dyn std::fmt::Display| one_line(&e.to_string());
    let exports = exported(module).map_err(|e| failed(&e))?;
    if !exports.iter().any(|name| name == NEEDED) {
        return Err(format!("it exports no function {NEEDED}; see docs/wasm.md"));
    }
    // The world as far as the module has it.
    let mut wit = String::new();
    for line in WIT.lines() {
        let export = line.trim_start().strip_prefix("export ").and_then(|rest| rest.split(':').next());
        // A sign before it keeps a name from being a word of the language.
        let name = export.map(|name| name.trim_start_matches('%'));
        if name.is_none_or(|name| exports.iter().any(|other| other == name)) {
            wit += line;
            wit.push('\n');
        }
    }
    let mut resolve = Resolve::default();
    let package = resolve.push_str("app.wit", &wit).map_err(|e| failed(&e))?;
    let world = resolve.select_world(&[package], Some("app")).map_err(|e| failed(&e))?;
    let mut bytes = module.to_vec();
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).map_err(|e| failed(&e))?;
    let encoder = ComponentEncoder::default().module(&bytes).map_err(|e| failed(&format!("{e:#}")))?;
    encoder.validate(true).encode().map_err(|e| failed(&format!("{e:#}")))
}

/// The names of a module's exports.
fn exported(module: &[u8]) -> Result<Vec<String>, wasmparser::BinaryReaderError> {
    let mut all = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        if let wasmparser::Payload::ExportSection(exports) = payload? {
            for export in exports {
                all.push(export?.name.to_string());
            }
        }
    }
    Ok(all)
}

/// Errors of compilers have many.
pub(super) fn one_line(text: &str) -> String {
    const MOST: usize = 500;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = text.floor_char_boundary(MOST);
    if end < text.len() { format!("{}…", &text[..end]) } else { text }
}

/// A thread that counts time for an engine.
struct Clock {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    fn begin(engine: Engine) -> std::io::Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let theirs = ends.clone();
        let count = move || {
            while !theirs.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        };
        Ok(Self { ends, thread: Some(std::thread::Builder::new().name("wasm-clock".into()).spawn(count)?) })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
