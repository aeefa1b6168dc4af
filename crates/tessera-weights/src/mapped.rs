//! Files that are mapped, and what is known of them when somebody changes them meanwhile.
//!
//! A mapping shows the file as it is, not as it was. A file that grows shorter takes pages away, and touching one that
//! is gone ends the process (SIGBUS); one that is written over becomes other weights without a word. Against the
//! first there is [`guard`]: it puts zeros in the place of what is gone and leaves a mark. Against both
//! [`Mapped::check`]: whoever has computed something from a mapping asks it before the result is used.

use crate::changed::Changed;
use memmap2::Mmap;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// A file's bytes, and the file that they were.
pub(crate) struct Mapped {
    // Dropped first: what is not mapped any more must not be found.
    #[cfg(unix)]
    watched: unix::Watched,
    map: Mmap,
    path: PathBuf,
    opened: Option<Stamp>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Device and number: another file may have taken the name.
    file: (u64, u64),
    len: u64,
    modified: Option<std::time::SystemTime>,
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        #[cfg(unix)]
        let file = {
            use std::os::unix::fs::MetadataExt;
            (meta.dev(), meta.ino())
        };
        #[cfg(not(unix))]
        let file = (0, 0);
        Stamp { file, len: meta.len(), modified: meta.modified().ok() }
    }
}

impl Mapped {
    /// Maps a whole file that is not empty, read only.
    pub fn new(file: &File, path: &Path) -> io::Result<Mapped> {
        let opened = file.metadata().ok().map(|meta| Stamp::of(&meta));
        // SAFETY: the map is read only and private to this handle. Another process can still change the file under us:
        // see this file's head.
        let map = unsafe { Mmap::map(file)? };
        Ok(Mapped {
            #[cfg(unix)]
            watched: unix::Watched::new(map.as_ptr().addr(), map.len()),
            map,
            path: path.to_owned(),
            opened,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether the bytes are still those of the file that was opened.
    pub fn check(&self) -> Result<(), Changed> {
        let changed = |what: String| {
            let what = format!("the file changed while it was in use: {what}");
            Err(Changed { file: self.path.display().to_string(), what })
        };
        // A file that was replaced or removed is still the one that is mapped.
        let now = std::fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta));
        let now = now.filter(|now| self.opened.is_some_and(|opened| opened.file == now.file));
        let len = self.map.len();
        #[cfg(unix)]
        if let Some(at) = self.watched.lost() {
            let now = now.map_or(String::new(), |now| format!(", it has {} now", now.len));
            let what = format!(
                "bytes from {at} on cannot be read any more: the file had {len} when it was opened{now}"
            );
            return changed(what);
        }
        match now {
            Some(now) if now.len != len as u64 => {
                changed(format!("it had {len} bytes when it was opened and has {} now", now.len))
            }
            Some(_) if now != self.opened => changed("it was written to since it was opened".to_owned()),
            _ => Ok(()),
        }
    }
}

/// From here on a mapped file that grows shorter does not end the process: zeros stand in the place of what is gone, and
/// [`crate::bytes::Bytes::check`] tells. It takes over the process's handler of SIGBUS, and hands on to the one before what is not
/// about a mapped file. Once is enough.
#[cfg(unix)]
pub fn guard() -> io::Result<()> {
    unix::guard()
}

/// Elsewhere the system does not let a mapped file grow shorter.
#[cfg(not(unix))]
pub fn guard() -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

    /// A place in the list of mappings. It is never freed, since the handler may be looking at it; the next mapping
    /// takes one that is not in use.
    struct Place {
        in_use: AtomicBool,
        /// Where the mapping begins; 0 while there is none.
        start: AtomicUsize,
        end: AtomicUsize,
        /// The first byte that is gone, counted from `start`.
        lost: AtomicUsize,
        next: Option<&'static Place>,
    }

    static PLACES: AtomicPtr<Place> = AtomicPtr::new(null_mut());
    static PAGE: AtomicUsize = AtomicUsize::new(4096);
    /// What was done about the signal before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    fn places() -> impl Iterator<Item = &'static Place> {
        // SAFETY: places are leaked, so that a pointer to one is always good.
        let first = unsafe { PLACES.load(SeqCst).as_ref::<'static>() };
        std::iter::successors(first, |place| place.next)
    }

    /// A mapping that the handler knows.
    pub struct Watched(&'static Place);

    impl Watched {
        pub fn new(start: usize, len: usize) -> Watched {
            let free = |place: &&Place| place.in_use.compare_exchange(false, true, SeqCst, SeqCst).is_ok();
            let place = places().find(free).unwrap_or_else(add);
            place.lost.store(usize::MAX, SeqCst);
            place.end.store(start + len, SeqCst);
            place.start.store(start, SeqCst);
            Watched(place)
        }

        /// The first byte that is gone.
        pub fn lost(&self) -> Option<usize> {
            Some(self.0.lost.load(SeqCst)).filter(|at| *at != usize::MAX)
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.start.store(0, SeqCst);
            self.0.in_use.store(false, SeqCst);
        }
    }

    fn add() -> &'static Place {
        let mut first = PLACES.load(SeqCst);
        let place = Box::leak(Box::new(Place {
            in_use: AtomicBool::new(true),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            lost: AtomicUsize::new(usize::MAX),
            next: None,
        }));
        loop {
            // SAFETY: places are leaked.
            place.next = unsafe { first.as_ref::<'static>() };
            match PLACES.compare_exchange(first, place, SeqCst, SeqCst) {
                Ok(_) => return place,
                Err(other) => first = other,
            }
        }
    }

    pub fn guard() -> io::Result<()> {
        if BEFORE.get().is_some() {
            return Ok(());
        }
        // SAFETY: sysconf takes no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE.store(usize::try_from(page).map_err(io::Error::other)?, SeqCst);
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null action asks for the present one, which is written to a structure of ours.
        let before = unsafe {
            if libc::sigaction(libc::SIGBUS, null(), before.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            before.assume_init()
        };
        if BEFORE.set(before).is_err() {
            return Ok(());
        }
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        // SAFETY: all zeros is an action without flags and with an empty mask; the handler has the form that
        // SA_SIGINFO asks for and does only what a handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            if libc::sigaction(libc::SIGBUS, &action, null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// It looks at atomics and calls `mmap`, `sigaction` and `raise`, all of which a handler may do. A panic is not
    /// possible: nothing is indexed and no sum overflows below the end of a mapping.
    extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: with SA_SIGINFO the system gives a valid structure; for a fault it has the address.
        let (address, sent) = unsafe { ((*info).si_addr() as usize, (*info).si_code <= 0) };
        if !sent && put_zeros(address) {
            return;
        }
        if let Some(before) = BEFORE.get() {
            // SAFETY: what the system gave is given back. A fault comes again and finds it; what was sent is sent again.
            unsafe {
                libc::sigaction(libc::SIGBUS, before, null_mut());
                if sent {
                    libc::raise(signal);
                }
            }
        }
    }

    /// Zeros from the page of the address to the end of its mapping; false if it is in none.
    fn put_zeros(address: usize) -> bool {
        let inside = |place: &&Place| {
            let start = place.start.load(SeqCst);
            start != 0 && start <= address && address < place.end.load(SeqCst)
        };
        let Some(place) = places().find(inside) else { return false };
        let from = address & !(PAGE.load(SeqCst).wrapping_sub(1));
        // First the mark, so that nobody can read a zero that is not told of.
        place.lost.fetch_min(from.wrapping_sub(place.start.load(SeqCst)), SeqCst);
        let len = place.end.load(SeqCst).wrapping_sub(from);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
        // SAFETY: the pages are those of a mapping that is in use, since it was touched; its memory stays mapped and
        // readable, and is given back as a whole by whoever mapped it. `mmap` leaves errno alone where it succeeds.
        let put = unsafe { libc::mmap(from as *mut libc::c_void, len, libc::PROT_READ, flags, -1, 0) };
        put != libc::MAP_FAILED
    }
}
