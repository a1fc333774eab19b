//! The thread pool of the kernels: the caller and spinning workers take the tasks of one call in turn.
//!
//! A call costs about a microsecond while the workers spin, which matters in decoding, where a token takes a hundred calls.
//! Workers without a task for [`SPINS`] rounds sleep until the next call. A task depends on its index alone, so the number of
//! threads never changes a result.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::thread::{self, Thread};

/// Rounds of spinning before a worker sleeps: tens of microseconds.
const SPINS: u32 = 4000;

/// Bit of [`Pool::state`] that is set while workers may enter the call.
const OPEN: u64 = 1 << 31;
/// Increment of [`Pool::state`] per call; the bits below [`OPEN`] count the workers inside.
const CALL: u64 = 1 << 32;

/// Work of one call, with the lifetime of its closure erased.
#[derive(Clone, Copy)]
struct Job {
    body: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

#[expect(unsafe_code, reason = "workers read the pointer")]
// SAFETY: the closure behind it is `Sync`, and `Pool::call` keeps it alive while workers use it.
unsafe impl Send for Job {}

struct Pool {
    /// Number of the call, [`OPEN`], and the number of workers inside.
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    next: AtomicUsize,
    panicked: AtomicBool,
    /// Held by the thread whose call is running.
    turn: Mutex<()>,
    sleeping: Vec<AtomicBool>,
    workers: OnceLock<Vec<Option<Thread>>>,
}

#[expect(unsafe_code, reason = "`job` is shared without a lock")]
// SAFETY: `job` is written only by the holder of `turn` while `OPEN` is unset and no worker is inside, and read only by
// workers that entered while `OPEN` was set.
unsafe impl Sync for Pool {}

/// Runs `body(0) .. body(tasks - 1)`, each once, on all threads; returns when all are done.
///
/// Calls from within a task, and calls while another thread's call is running, run on the calling thread alone.
///
/// # Panics
/// When a task panics.
pub(crate) fn run(tasks: usize, body: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads();
    if tasks <= 1 || threads == 1 {
        return (0..tasks).for_each(body);
    }
    let pool = pool();
    let _turn = match pool.turn.try_lock() {
        Ok(turn) => turn,
        // an earlier call's task panicked; the pool itself is whole
        Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        Err(TryLockError::WouldBlock) => return (0..tasks).for_each(body),
    };
    pool.call(tasks, &body);
}

/// [`run`] over the chunks of `data`, each of `len` elements except the last.
pub(crate) fn run_chunks<T: Send>(data: &mut [T], len: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let (all, base) = (data.len(), SharedPtr(data.as_mut_ptr()));
    run(all.div_ceil(len.max(1)), |task| {
        let from = task * len;
        #[expect(unsafe_code, reason = "tasks write parts of one slice")]
        // SAFETY: the parts `from..from + len` of different tasks are disjoint, lie inside `data`, and `data` is
        // borrowed uniquely for the whole call.
        let chunk = unsafe { std::slice::from_raw_parts_mut(base.get().add(from), len.min(all - from)) };
        body(task, chunk);
    });
}

/// [`run`] over consecutive ranges of units, the first from 0, each with its part of `data`: `len` elements a unit, fewer in
/// the last one.
///
/// # Panics
/// When the ranges are not consecutive, or a task panics.
pub(crate) fn run_ranges<T: Send>(
    data: &mut [T],
    ranges: &[Range<usize>],
    len: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    let (all, base) = (data.len(), SharedPtr(data.as_mut_ptr()));
    assert!(ranges.iter().try_fold(0, |from, range| (range.start == from).then_some(range.end)).is_some());
    run(ranges.len(), |task| {
        let [from, to] = [ranges[task].start, ranges[task].end].map(|unit| (unit * len).min(all));
        #[expect(unsafe_code, reason = "tasks write parts of one slice")]
        // SAFETY: the ranges follow each other, so the parts `from..to` of different tasks are disjoint; they lie inside `data`,
        // which is borrowed uniquely for the whole call.
        let part = unsafe { std::slice::from_raw_parts_mut(base.get().add(from), to - from) };
        body(task, part);
    });
}

/// Ranges of units for tasks of ever smaller size, as OpenMP's guided schedule cuts a loop.
///
/// Memory is read fastest in long ranges, and short ones at the end let threads finish together. A range is a multiple of
/// `multiple_of` units and has at least `min` units, except the last one.
pub(crate) fn guided_ranges(units: usize, min: usize, multiple_of: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while from < units {
        let share = (units - from).div_ceil(2 * rayon::current_num_threads());
        let to = (from + share.max(min).next_multiple_of(multiple_of)).min(units);
        ranges.push(from..to);
        from = to;
    }
    ranges
}

/// Pointer that tasks share. Its maker decides which elements each task may touch.
pub(crate) struct SharedPtr<T>(pub(crate) *mut T);

impl<T> Clone for SharedPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedPtr<T> {}

impl<T> SharedPtr<T> {
    /// The pointer; a method, so that closures capture the whole value.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

#[expect(unsafe_code, reason = "tasks on other threads write through the pointer")]
// SAFETY: the pointer itself is plain data; every dereference states why it is sound.
unsafe impl<T: Send> Sync for SharedPtr<T> {}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = POOL.get_or_init(|| Pool {
        state: AtomicU64::new(0),
        job: UnsafeCell::new(None),
        next: AtomicUsize::new(0),
        panicked: AtomicBool::new(false),
        turn: Mutex::new(()),
        sleeping: (1..rayon::current_num_threads()).map(|_| AtomicBool::new(false)).collect(),
        workers: OnceLock::new(),
    });
    pool.workers.get_or_init(|| (0..pool.sleeping.len()).map(|index| spawn(pool, index)).collect());
    pool
}

/// Starts a worker, or returns `None` when the system gives no thread; the others then do its work.
fn spawn(pool: &'static Pool, index: usize) -> Option<Thread> {
    let builder = thread::Builder::new().name(format!("mpt-kernel-{index}"));
    builder.spawn(move || pool.work(index)).ok().map(|handle| handle.thread().clone())
}

impl Pool {
    /// Runs the tasks of one call; the caller holds `turn`.
    fn call(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        #[expect(unsafe_code, reason = "workers outlive the closure's lifetime, not this call")]
        // SAFETY: only the lifetime changes. This function does not return before every worker that could read the
        // pointer has left, and no worker enters once `OPEN` is unset. No worker is inside now and `turn` is held, so
        // nobody reads `job` while it is written.
        unsafe {
            let body =
                std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(body);
            *self.job.get() = Some(Job { body, tasks });
        }
        self.next.store(0, Ordering::Relaxed);
        let call = (self.state.load(Ordering::Relaxed) & !(CALL - 1)).wrapping_add(CALL);
        self.state.store(call | OPEN, Ordering::SeqCst);
        self.wake(tasks - 1);
        let done = catch_unwind(AssertUnwindSafe(|| self.take_tasks(tasks, body)));
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            // a worker that the system does not run needs this thread's processor
            if spins < SPINS {
                spin_loop()
            } else {
                thread::yield_now()
            }
            spins += 1;
        }
        let worker_panicked = self.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        assert!(!worker_panicked, "a task of a kernel panicked");
    }

    /// Runs tasks until none is left.
    fn take_tasks(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            body(task);
        }
    }

    /// Wakes up to `wanted` sleeping workers.
    fn wake(&self, wanted: usize) {
        let Some(workers) = self.workers.get() else { return };
        for (sleeping, worker) in self.sleeping.iter().zip(workers).take(wanted) {
            if let Some(worker) = worker
                && sleeping.swap(false, Ordering::SeqCst)
            {
                worker.unpark();
            }
        }
    }

    /// Loop of worker `index`.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let call = self.wait(index, seen);
            seen = call;
            if self.enter(call) {
                #[expect(unsafe_code, reason = "the job's lifetime is erased")]
                // SAFETY: this worker is counted as inside, so the caller waits for it before the closure ends and
                // before `job` is written again.
                let (body, tasks) = unsafe {
                    let job = (*self.job.get()).expect("a job is set before the call opens");
                    (&*job.body, job.tasks)
                };
                if catch_unwind(AssertUnwindSafe(|| self.take_tasks(tasks, body))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.state.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Waits for a call other than `seen` and returns its number.
    fn wait(&self, index: usize, seen: u64) -> u64 {
        let current = || self.state.load(Ordering::SeqCst) & !(CALL - 1);
        loop {
            for _ in 0..SPINS {
                if current() != seen {
                    return current();
                }
                spin_loop();
            }
            self.sleeping[index].store(true, Ordering::SeqCst);
            while current() == seen && self.sleeping[index].load(Ordering::SeqCst) {
                thread::park();
            }
            self.sleeping[index].store(false, Ordering::SeqCst);
        }
    }

    /// Counts this worker as inside `call`, or returns false when that call is over.
    fn enter(&self, call: u64) -> bool {
        let enter = |state: u64| {
            let open = state & !(CALL - 1) == call && state & OPEN != 0;
            open.then_some(state + 1)
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for tasks in [0, 1, 2, 3, 64, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            run(tasks, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{tasks} tasks");
        }
    }

    #[test]
    fn many_calls_from_many_threads_and_from_within_tasks() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let total = AtomicUsize::new(0);
                        run(7, |outer| {
                            run(3, |inner| {
                                total.fetch_add(outer * inner, Ordering::Relaxed);
                            })
                        });
                        assert_eq!(total.into_inner(), 21 * 3);
                    }
                });
            }
        });
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut data = vec![0usize; 1001];
        run_chunks(&mut data, 10, |index, chunk| chunk.fill(index + 1));
        assert!(data.iter().enumerate().all(|(i, &value)| value == i / 10 + 1));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let panicked = catch_unwind(|| run(100, |task| assert!(task != 57, "task 57")));
        assert!(panicked.is_err());
        every_task_runs_once();
    }
}
