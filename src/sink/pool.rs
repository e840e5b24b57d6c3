//! Threads that take tasks from one stack until none is left. A task may add more.
//! It must never know what a task does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

/// What the threads share.
struct Stack<Task> {
    tasks: Vec<Task>,
    /// Threads that may still add tasks.
    busy: usize,
    /// Set by the first failure: no task is begun any more.
    failure: Option<anyhow::Error>,
}

/// What a task adds: the tasks that are to be run after it.
pub(super) struct Added<'a, Task> {
    pub(super) tasks: Vec<Task>,
    /// Threads that wait for a task; changed under the lock of the stack.
    waiting: &'a AtomicUsize,
}

impl<Task> Added<'_, Task> {
    /// Whether a thread has nothing to do: a long task may end here and add what is left of it in parts.
    pub(super) fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Runs `work` on `tasks` and on all that it pushes, in `jobs` threads, each with a state of its own from
/// `state`. The task pushed last is taken first: a tree is walked depth first, and little waits.
/// Returns the states, or the first error; after that no further task is begun.
pub(super) fn run<Task: Send, State: Send>(
    jobs: usize,
    tasks: Vec<Task>,
    state: impl Fn() -> State + Sync,
    work: impl Fn(Task, &mut State, &mut Added<'_, Task>) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Vec<State>> {
    let stack = Mutex::new(Stack { tasks, busy: 0, failure: None });
    let waiting = AtomicUsize::new(0);
    let changed = Condvar::new();
    // A thread that panicked has aborted the process; the lock is never left in between.
    let lock = || stack.lock().unwrap_or_else(PoisonError::into_inner);
    let next = |mut stack: MutexGuard<'_, Stack<Task>>| loop {
        if stack.failure.is_some() {
            return None;
        }
        if let Some(task) = stack.tasks.pop() {
            stack.busy += 1;
            return Some(task);
        }
        if stack.busy == 0 {
            return None;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        stack = changed.wait(stack).unwrap_or_else(PoisonError::into_inner);
        waiting.fetch_sub(1, Ordering::Relaxed);
    };
    let thread = || {
        let mut state = state();
        let mut added = Added { tasks: Vec::new(), waiting: &waiting };
        let mut task = next(lock());
        while let Some(now) = task {
            let outcome = work(now, &mut state, &mut added);
            let mut stack = lock();
            stack.busy -= 1;
            stack.tasks.append(&mut added.tasks);
            if let Err(error) = outcome {
                stack.failure.get_or_insert(error);
            }
            let news = stack.busy == 0 || stack.tasks.len() > 1 || stack.failure.is_some();
            // Waking nobody would be a system call all the same.
            if news && waiting.load(Ordering::Relaxed) > 0 {
                changed.notify_all();
            }
            task = next(stack);
        }
        state
    };
    let states = std::thread::scope(|scope| {
        // Where the system gives no more threads, fewer do the work.
        let spawn = |_| Builder::new().spawn_scoped(scope, thread).ok();
        let others: Vec<_> = (1..jobs).map_while(spawn).collect();
        let mut states = vec![thread()];
        states.extend(others.into_iter().filter_map(|other| other.join().ok()));
        states
    });
    match stack.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(states),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn every_task_runs_once_however_many_threads() {
        for jobs in [1, 2, 16] {
            let states = run(jobs, vec![10_u32], Vec::new, |task, seen: &mut Vec<u32>, more| {
                seen.push(task);
                more.tasks.extend((0..task).take(3));
                Ok(())
            })
            .unwrap();
            assert_eq!(states.len(), jobs);
            let mut seen = states.concat();
            seen.sort_unstable();
            // 10 pushes 0, 1, 2; each 1 pushes 0; each 2 pushes 0 and 1.
            assert_eq!(seen, [0, 0, 0, 0, 1, 1, 2, 10], "{jobs} jobs");
        }
    }

    #[test]
    fn the_first_failure_stops_the_rest() {
        let done = AtomicUsize::new(0);
        // The last task is taken first.
        let outcome = run(
            1,
            (0..1000).collect(),
            || (),
            |task, (), _| {
                done.fetch_add(1, Ordering::Relaxed);
                anyhow::ensure!(task != 900, "task {task}");
                Ok(())
            },
        );
        assert_eq!(outcome.unwrap_err().to_string(), "task 900");
        assert_eq!(done.into_inner(), 100);
        let states = run(3, Vec::<()>::new(), || 7, |(), _, _| Ok(())).unwrap();
        assert_eq!(states, [7, 7, 7]);
    }

    #[test]
    fn a_failure_stops_the_other_threads() {
        // Three tasks add themselves again and again: only the failure of the fourth ends them.
        let outcome = run(
            4,
            vec![Some(0_u32), Some(0), Some(0), None],
            || (),
            |task, (), added| {
                let turns = task.context("the task that fails")?;
                assert!(turns < 100_000_000, "the failure has stopped nothing");
                added.tasks.push(Some(turns + 1));
                Ok(())
            },
        );
        assert_eq!(outcome.unwrap_err().to_string(), "the task that fails");
    }

    #[test]
    fn a_task_is_told_of_a_thread_without_one() {
        // The only task waits for the other thread to have none, and then shares what it has.
        let states = run(
            2,
            vec![2],
            || 0,
            |task, sum, added| {
                while task == 2 && !added.are_wanted() {
                    std::thread::yield_now();
                }
                added.tasks.extend((1..task).map(|_| 1));
                *sum += task;
                Ok(())
            },
        );
        assert_eq!(states.unwrap().iter().sum::<i32>(), 3);
        let alone = run(
            1,
            vec![()],
            || false,
            |(), wanted, added| {
                *wanted = added.are_wanted();
                Ok(())
            },
        );
        assert_eq!(alone.unwrap(), [false]);
    }
}
