//! What a user wants: a job, of any of several apps, over large, tiny, skewed and missing inputs, alone or followed by
//! another one.

use std::collections::BTreeMap;
use std::fmt;

use gristmill_proto::v1 as api;
use rand_pcg::Pcg64Mcg;

use crate::random::below;
use crate::reference::App;

/// Bytes of a map task's input.
const MAP_TASK: u64 = 64 << 10;

/// Which half of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Both,
    /// It leaves segments.
    Map,
    /// It reduces those.
    Reduce,
}

/// A job that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) app: App,
    pub(crate) half: Half,
    /// The app whose result this one reads; `None`: it reads the inputs.
    before: Option<App>,
    /// Of the job, or of the one before it.
    inputs: Vec<String>,
    pub(crate) output: String,
    /// It may replace an output of that name.
    pub(crate) overwrite: bool,
    /// So many bad records are passed over.
    pub(crate) skip: u64,
    reducers: u32,
    priority: i32,
    /// What follows it.
    pub(crate) then: Option<Box<Self>>,
}

impl Wish {
    pub(crate) fn of(random: &mut Pcg64Mcg, user: &str, n: u8) -> Self {
        let mut roll = |n: u64| below(random, n);
        let app = match roll(10) {
            0 => App::Grep(["mill", "w1", "xyzzy"][roll(3) as usize].into()),
            1 => App::Sort,
            2 => App::Distinct,
            3 => App::Index,
            4..=6 => App::Fickle,
            7 => App::Picky(["mill", "w1", "xyzzy"][roll(3) as usize].into()),
            _ => App::WordCount,
        };
        let inputs: Vec<String> = match roll(6) {
            0 => vec!["in/tiny".into()],
            1 => vec!["in/void".into()],
            2 => vec!["in/small".into(), "in/skewed".into()],
            3 if roll(3) == 0 => vec!["in/absent".into()],
            _ => vec!["in/".into()],
        };
        // Some want the same name.
        let output = match roll(4) {
            0 => "out/shared".to_string(),
            _ => format!("out/{user}-{n}"),
        };
        let skip = if roll(4) == 0 { 0 } else { 100_000 };
        let wish = Self {
            app,
            half: Half::Both,
            before: None,
            inputs,
            output,
            overwrite: roll(3) == 0,
            skip,
            reducers: roll(4) as u32,
            priority: roll(3) as i32,
            then: None,
        };
        // What another job reads, nobody else may replace.
        let read = format!("out/{user}-{n}");
        let output = format!("out/{user}-{n}-then");
        match roll(6) {
            0 => {
                let reduce = Self { half: Half::Reduce, output, ..wish.clone() };
                Self { half: Half::Map, output: read, then: Some(Box::new(reduce)), ..wish }
            }
            1 if wish.app != App::Fickle => {
                let app = [App::Sort, App::WordCount, App::Distinct, App::Grep("w1".into())][roll(4) as usize].clone();
                let then = Self { app, before: Some(wish.app.clone()), output, ..wish.clone() };
                Self { output: read, then: Some(Box::new(then)), ..wish }
            }
            _ => wish,
        }
    }

    /// As it is submitted.
    pub(crate) fn spec(&self) -> api::JobSpec {
        let (name, arguments) = self.app.command();
        let phase = match self.half {
            Half::Both => api::Phase::Unspecified,
            Half::Map => api::Phase::Map,
            Half::Reduce => api::Phase::Reduce,
        };
        let follows = self.before.is_some() || self.half == Half::Reduce;
        api::JobSpec {
            app: Some(api::App { name: name.into(), arguments, ..Default::default() }),
            inputs: if follows { Vec::new() } else { self.inputs.clone() },
            output: self.output.clone(),
            reducers: self.reducers,
            map_task_bytes: MAP_TASK,
            overwrite: self.overwrite,
            priority: self.priority,
            skip_bad_records: self.skip,
            phase: phase.into(),
            then: self.then.as_ref().map(|then| Box::new(then.spec())),
            ..Default::default()
        }
    }

    /// The texts that are read, of all there are, by this job or by the one before it.
    pub(crate) fn texts(&self, all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let named = |name: &str| {
            self.inputs.iter().any(|input| name == input || (input.ends_with('/') && name.starts_with(input)))
        };
        all.iter().filter(|(name, _)| named(name)).map(|(name, text)| (name.clone(), text.clone())).collect()
    }

    /// What it reads, when `texts` are what is read at first.
    fn read(&self, texts: BTreeMap<String, String>) -> BTreeMap<String, String> {
        match &self.before {
            Some(before) => {
                let lines = before.lines(&texts).into_iter().map(|line| line + "\n");
                BTreeMap::from([(String::new(), lines.collect())])
            }
            None => texts,
        }
    }

    /// All lines of its result, in the order of their bytes.
    pub(crate) fn lines(&self, all: &BTreeMap<String, String>) -> Vec<String> {
        self.app.lines(&self.read(self.texts(all)))
    }

    /// Records that it cannot take. Of those that were not taken when segments were made, their reducers know nothing.
    pub(crate) fn bad_records(&self, all: &BTreeMap<String, String>) -> usize {
        if self.half == Half::Reduce {
            return 0;
        }
        self.app.bad_records(&self.read(self.texts(all)))
    }

    /// Whether it can only fail.
    pub(crate) fn is_hopeless(&self, all: &BTreeMap<String, String>) -> bool {
        self.inputs.iter().any(|input| input == "in/absent") || self.bad_records(all) as u64 > self.skip
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.app)?;
        match (&self.before, self.half) {
            (Some(before), _) => write!(f, " of the {before:?}")?,
            (None, Half::Both) => {}
            (None, half) => write!(f, " (only {half:?})")?,
        }
        write!(f, " of {:?} to {}", self.inputs, self.output)?;
        self.then.as_ref().map_or(Ok(()), |then| write!(f, ", then {:?}", then.app))
    }
}
