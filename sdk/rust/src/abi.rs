//! The canonical ABI of the world's functions, for [`export!`](crate::export); not to be called by apps.
//!
//! Source: the component model's `CanonicalABI.md`. Lists come as a place and a length in memory that the guest gave by
//! `cabi_realloc` and that is its own from then on; a result goes back as the place of three words, which `cabi_post_*` frees.

use std::alloc::{Layout, alloc, dealloc};

use crate::pairs::groups;
use crate::{App, Pairs, Stage, Task};

/// A result in memory: 0 with bytes, or 1 with a text.
#[repr(C)]
#[derive(Debug)]
pub struct Area {
    failed: usize,
    at: *mut u8,
    len: usize,
}

/// An app at a task, and pairs of a key that goes on.
#[derive(Debug)]
pub struct Held<A> {
    app: Option<A>,
    reduces: bool,
    goes_on: Vec<u8>,
}

impl<A> Held<A> {
    /// Before the task.
    pub const fn new() -> Self {
        Self { app: None, reduces: false, goes_on: Vec::new() }
    }
}

impl<A> Default for Held<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: App> Held<A> {
    fn app(&mut self) -> Result<&mut A, String> {
        self.app.as_mut().ok_or_else(|| "the task was not begun".to_string())
    }

    /// Begins a task.
    ///
    /// # Errors
    /// Why it fails.
    pub fn begin(&mut self, stage: &str, input: &str, records: &str) -> Result<(), String> {
        self.reduces = stage == "reduce";
        let stage = if self.reduces { Stage::Reduce } else { Stage::Map };
        self.app = Some(A::begin(Task { stage, input, lines: records == "lines" })?);
        Ok(())
    }

    /// Maps a batch.
    ///
    /// # Errors
    /// Why the task fails.
    pub fn map(&mut self, records: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Pairs::default();
        self.app()?.map(records, &mut out)?;
        Ok(out.0)
    }

    /// Combines pairs.
    ///
    /// # Errors
    /// Why the task fails.
    pub fn combine(&mut self, pairs: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Pairs::default();
        let app = self.app()?;
        groups(pairs, |key, values, _| app.combine(key, values, &mut out))?;
        Ok(out.0)
    }

    /// Reduces pairs, of which the last key may go on in the next call.
    ///
    /// # Errors
    /// Why the task fails.
    pub fn reduce(&mut self, pairs: &[u8], more: bool) -> Result<Vec<u8>, String> {
        let mut all = std::mem::take(&mut self.goes_on);
        all.extend_from_slice(pairs);
        let mut out = Vec::new();
        let app = self.app()?;
        let last =
            groups(&all, |key, values, last| if last && more { Ok(()) } else { app.reduce(key, values, &mut out) })?;
        if more {
            self.goes_on = all.split_off(last);
        }
        Ok(out)
    }

    /// Ends the task.
    ///
    /// # Errors
    /// Why it fails.
    pub fn finish(&mut self) -> Result<Vec<u8>, String> {
        if self.reduces {
            return self.reduce(&[], false);
        }
        let mut out = Pairs::default();
        self.app()?.mapped(&mut out)?;
        Ok(out.0)
    }
}

/// Bytes that the host put where `cabi_realloc` said.
///
/// # Safety
/// They are there, and are given up.
pub unsafe fn given(at: *mut u8, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    // SAFETY: allocated by `realloc` below, with an alignment of 1; the caller gives them up.
    unsafe { Vec::from_raw_parts(at, len, len) }
}

/// A text that the host gave.
///
/// # Safety
/// As of [`given`].
pub unsafe fn text(at: *mut u8, len: usize) -> String {
    // SAFETY: the caller says so.
    String::from_utf8_lossy(&unsafe { given(at, len) }).into_owned()
}

/// Puts a result where the host reads it.
pub fn area(result: Result<Vec<u8>, String>) -> *mut Area {
    let (failed, bytes) = match result {
        Ok(bytes) => (0, bytes),
        Err(text) => (1, text.into_bytes()),
    };
    let bytes = Box::leak(bytes.into_boxed_slice());
    Box::into_raw(Box::new(Area { failed, at: bytes.as_mut_ptr(), len: bytes.len() }))
}

/// Frees a result that was read.
///
/// # Safety
/// It was made by [`area`], and is freed once.
pub unsafe fn free(area: *mut Area) {
    // SAFETY: the caller says so.
    unsafe {
        let area = Box::from_raw(area);
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(area.at, area.len)));
    }
}

/// Memory for the host, or more of it.
///
/// # Safety
/// `old` came from here with `old_len` bytes and that alignment, or there are none.
pub unsafe fn realloc(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    let layout = |len: usize| Layout::from_size_align(len.max(1), align.max(1)).unwrap_or(Layout::new::<u64>());
    if len == 0 {
        return std::ptr::without_provenance_mut(align.max(1));
    }
    // SAFETY: the layouts have sizes; `old` was made here with `old_len` bytes.
    unsafe {
        let at = alloc(layout(len));
        if at.is_null() {
            std::alloc::handle_alloc_error(layout(len));
        }
        if old_len > 0 {
            std::ptr::copy_nonoverlapping(old, at, old_len.min(len));
            dealloc(old, layout(old_len));
        }
        at
    }
}

/// Combines, for [`export!`](crate::export).
pub fn combine<A: App>(held: &mut Held<A>, pairs: Vec<u8>) -> *mut Area {
    area(held.combine(&pairs))
}

#[cfg(target_arch = "wasm32")]
mod host {
    #[link(wasm_import_module = "gristmill:app/host@0.1.0")]
    unsafe extern "C" {
        pub(super) safe fn counter(group: *const u8, group_len: usize, name: *const u8, name_len: usize, amount: i64);
        pub(super) safe fn status(text: *const u8, len: usize);
        pub(super) safe fn log(line: *const u8, len: usize);
    }
}

pub(crate) fn count(group: &str, name: &str, amount: i64) {
    #[cfg(target_arch = "wasm32")]
    host::counter(group.as_ptr(), group.len(), name.as_ptr(), name.len(), amount);
    // In tests of an app nobody listens.
    let _ = (group, name, amount);
}

pub(crate) fn status(text: &str) {
    #[cfg(target_arch = "wasm32")]
    host::status(text.as_ptr(), text.len());
    let _ = text;
}

pub(crate) fn log(line: &str) {
    #[cfg(target_arch = "wasm32")]
    host::log(line.as_ptr(), line.len());
    let _ = line;
}

/// The functions of the world but `combine`.
#[doc(hidden)]
#[macro_export]
macro_rules! __exports {
    ($app:ty) => {
        ::std::thread_local! {
            static APP: ::std::cell::RefCell<$crate::abi::Held<$app>> =
                const { ::std::cell::RefCell::new($crate::abi::Held::new()) };
        }
        const _: () = {
            use $crate::abi::{Area, area, free, given, text};
            #[unsafe(no_mangle)]
            extern "C" fn cabi_realloc(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
                // SAFETY: by the ABI it is what the host got from here.
                unsafe { $crate::abi::realloc(old, old_len, align, len) }
            }
            #[unsafe(no_mangle)]
            extern "C" fn begin(
                stage: *mut u8,
                stage_len: usize,
                input: *mut u8,
                input_len: usize,
                records: *mut u8,
                records_len: usize,
            ) -> *mut Area {
                let [stage, input, records] = [(stage, stage_len), (input, input_len), (records, records_len)]
                    // SAFETY: by the ABI they are there, and ours.
                    .map(|(at, len)| unsafe { text(at, len) });
                area(APP.with_borrow_mut(|app| app.begin(&stage, &input, &records)).map(|()| Vec::new()))
            }
            #[unsafe(no_mangle)]
            extern "C" fn map(at: *mut u8, len: usize) -> *mut Area {
                // SAFETY: by the ABI they are there, and ours.
                let records = unsafe { given(at, len) };
                area(APP.with_borrow_mut(|app| app.map(&records)))
            }
            #[unsafe(no_mangle)]
            extern "C" fn reduce(at: *mut u8, len: usize, more: u32) -> *mut Area {
                // SAFETY: as above.
                let pairs = unsafe { given(at, len) };
                area(APP.with_borrow_mut(|app| app.reduce(&pairs, more != 0)))
            }
            #[unsafe(no_mangle)]
            extern "C" fn finish() -> *mut Area {
                area(APP.with_borrow_mut(|app| app.finish()))
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_begin(area: *mut Area) {
                // SAFETY: by the ABI it is a result that was read.
                unsafe { free(area) }
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_map(area: *mut Area) {
                // SAFETY: by the ABI it is a result that was read.
                unsafe { free(area) }
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_reduce(area: *mut Area) {
                // SAFETY: by the ABI it is a result that was read.
                unsafe { free(area) }
            }
            #[unsafe(no_mangle)]
            extern "C" fn cabi_post_finish(area: *mut Area) {
                // SAFETY: by the ABI it is a result that was read.
                unsafe { free(area) }
            }
        };
    };
}
#[doc(hidden)]
pub use crate::__exports as exports;

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum;

    impl App for Sum {
        fn begin(_: Task<'_>) -> Result<Self, String> {
            Ok(Self)
        }
        fn map(&mut self, records: &[u8], out: &mut Pairs) -> Result<(), String> {
            out.push(records, b"1");
            Ok(())
        }
        fn reduce(&mut self, key: &[u8], values: crate::Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
            out.extend_from_slice(key);
            out.extend_from_slice(format!(" {}\n", values.count()).as_bytes());
            Ok(())
        }
    }

    #[test]
    fn a_key_that_goes_on_is_reduced_once() {
        let mut held = Held::<Sum>::new();
        assert!(held.map(b"x").is_err(), "it was not begun");
        held.begin("reduce", "", "lines").unwrap();
        let pairs = |keys: &[&str]| {
            let mut pairs = Pairs::default();
            keys.iter().for_each(|key| pairs.push(key.as_bytes(), b""));
            pairs.0
        };
        assert_eq!(held.reduce(&pairs(&["a", "b"]), true).unwrap(), b"a 1\n");
        assert_eq!(held.reduce(&pairs(&["b", "b"]), true).unwrap(), b"");
        assert_eq!(held.reduce(&pairs(&["b", "c"]), false).unwrap(), b"b 4\nc 1\n");
        assert_eq!(held.finish().unwrap(), b"");
    }

    #[test]
    fn memory_goes_to_the_host_and_comes_back() {
        // SAFETY: what is written is there, and each piece is given up once.
        unsafe {
            let at = realloc(std::ptr::null_mut(), 0, 1, 5);
            std::ptr::copy_nonoverlapping(b"hello".as_ptr(), at, 5);
            let at = realloc(at, 5, 1, 7);
            std::ptr::copy_nonoverlapping(b"!!".as_ptr(), at.add(5), 2);
            assert_eq!(text(at, 7), "hello!!");
            assert_eq!(given(realloc(std::ptr::null_mut(), 0, 1, 0), 0), b"");
        }
        for result in [Ok(Vec::new()), Ok(b"bytes".to_vec()), Err("why".to_string())] {
            // SAFETY: made here, freed once.
            unsafe { free(area(result)) };
        }
    }
}
