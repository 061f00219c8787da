//! Permits and room: who enters, in which order, and that nobody is forgotten.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use threadsafe_ocr::permits::{Permit, Permits, Place, Room, Taken, Ticket, Wake};
use threadsafe_ocr::{Error, Result};

const MB: usize = 1 << 20;

/// Who was called and has not given back, with what, in order; and everyone who was ever called.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Called>>);

#[derive(Default)]
struct Called {
    now: Vec<(usize, Result<Permit>)>,
    ever: Vec<usize>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Called> {
        self.0.lock().expect("not poisoned")
    }

    fn reserve(&self, permits: &Permits, name: usize, bytes: usize) -> Ticket {
        let calls = self.clone();
        permits.reserve(bytes, move |permit| {
            let mut called = calls.lock();
            called.now.push((name, permit));
            called.ever.push(name);
        })
    }

    fn names(&self) -> Vec<usize> {
        self.lock().now.iter().map(|(name, _)| *name).collect()
    }

    /// Returns the permit of `name`.
    fn give_back(&self, name: usize) {
        let mut called = self.lock();
        let place = called.now.iter().position(|(other, _)| *other == name).expect("it was called");
        let permit = called.now.remove(place);
        drop(called);
        drop(permit);
    }
}

fn usage(permits: &Permits) -> (usize, usize) {
    let (requests, bytes, _) = permits.usage();
    (requests, bytes)
}

fn is_overloaded(permit: &Result<Permit>) -> bool {
    matches!(permit, Err(Error::Overloaded { .. }))
}

#[test]
fn a_permit_counts_while_it_lives_and_returns_by_itself() {
    let permits = Permits::new(8, 64 * MB);
    let mut permit = permits.try_reserve(4 * MB).expect("it is empty");
    assert_eq!(usage(&permits), (1, 4 * MB));
    permit.shrink(MB);
    assert_eq!(usage(&permits), (1, MB));
    permit.shrink(2 * MB);
    assert_eq!(usage(&permits), (1, MB), "a permit never grows");
    drop(permit);
    assert_eq!(usage(&permits), (0, 0));
}

#[test]
fn each_line_is_served_first_come_first_served() {
    let permits = Permits::new(1000, 64 * MB);
    // A request of more than the large ones may have fills their share; small ones have the last eighth.
    let full = permits.try_reserve(64 * MB).expect("it is empty");
    let small: Vec<_> = (0..8).map(|_| permits.try_reserve(MB).expect("an eighth is left")).collect();
    let calls = Calls::default();
    let sizes = [20 * MB, MB, 30 * MB, MB];
    let _tickets: Vec<_> = (0..4).map(|name| calls.reserve(&permits, name, sizes[name])).collect();
    assert_eq!(calls.names(), Vec::<usize>::new());
    drop(small);
    assert_eq!(calls.names(), [1, 3], "small ones pass large ones that wait");
    drop(full);
    assert_eq!(calls.names(), [1, 3, 0, 2]);
}

#[test]
fn small_is_a_64th_of_the_bytes_and_8_mib_at_most() {
    for (max_bytes, small) in [(64 * MB, MB), (1024 * MB, 8 * MB)] {
        let permits = Permits::new(1000, max_bytes);
        let _full = permits.try_reserve(max_bytes).expect("it is empty");
        assert!(permits.try_reserve(small).is_ok(), "{small} is small of {max_bytes}");
        assert!(is_overloaded(&permits.try_reserve(small + 1)), "{small} + 1 is large of {max_bytes}");
    }
}

#[test]
fn large_requests_leave_an_eighth_of_the_requests_and_of_the_bytes() {
    let permits = Permits::new(16, 64 * MB);
    let large: Vec<_> = (0..14).map(|_| permits.try_reserve(2 * MB).expect("7/8 of the requests")).collect();
    assert!(is_overloaded(&permits.try_reserve(2 * MB)));
    let _small = [permits.try_reserve(1), permits.try_reserve(1)].map(|permit| permit.expect("an eighth is left"));
    drop(large);
    let permits = Permits::new(1000, 64 * MB);
    let _large: Vec<_> = (0..7).map(|_| permits.try_reserve(8 * MB).expect("7/8 of the bytes")).collect();
    assert!(is_overloaded(&permits.try_reserve(2 * MB)));
    let _small: Vec<_> = (0..8).map(|_| permits.try_reserve(MB).expect("an eighth is left")).collect();
    assert_eq!(usage(&permits), (15, 64 * MB));
}

#[test]
fn fewer_than_eight_requests_share_one_line_and_all_bytes() {
    let permits = Permits::new(2, 64 * MB);
    let large = permits.try_reserve(64 * MB).expect("it may have everything");
    let calls = Calls::default();
    let _tickets = [calls.reserve(&permits, 0, 64 * MB), calls.reserve(&permits, 1, 1)];
    drop(large);
    assert_eq!(calls.names(), [0], "a small one does not pass");
    calls.give_back(0);
    assert_eq!(calls.names(), [1]);
}

#[test]
fn a_request_larger_than_the_large_share_enters_alone_and_small_ones_go_on() {
    let permits = Permits::new(1000, 64 * MB);
    let other = permits.try_reserve(2 * MB).expect("it is empty");
    assert!(is_overloaded(&permits.try_reserve(500 * MB)), "another large one is in");
    drop(other);
    let _huge = permits.try_reserve(500 * MB).expect("no other large one is in");
    assert!(is_overloaded(&permits.try_reserve(2 * MB)));
    assert!(permits.try_reserve(MB).is_ok());
}

#[test]
fn small_requests_beyond_their_eighth_wait_behind_an_older_large_one() {
    let permits = Permits::new(16, 64 * MB);
    let calls = Calls::default();
    let small: Vec<_> = (0..16).map(|_| permits.try_reserve(1).expect("nobody else is there")).collect();
    let _large = calls.reserve(&permits, 100, 2 * MB);
    let _newcomers: Vec<_> = (0..4).map(|name| calls.reserve(&permits, name, 1)).collect();
    drop(small);
    assert_eq!(calls.names(), [100, 0, 1, 2, 3], "it came first");
}

#[test]
fn a_place_in_line_that_is_left_does_not_hold_up_those_behind() {
    let permits = Permits::new(1000, 64 * MB);
    let full = permits.try_reserve(50 * MB).expect("it is empty");
    let calls = Calls::default();
    let first = calls.reserve(&permits, 0, 20 * MB);
    let _second = calls.reserve(&permits, 1, 4 * MB);
    assert_eq!(calls.names(), Vec::<usize>::new(), "no one passes");
    drop(first);
    assert_eq!(calls.names(), [1]);
    drop(full);
    assert_eq!(calls.names(), [1], "who left is never called");
}

#[test]
fn a_grant_to_a_caller_who_has_left_goes_to_the_next_however_many_have() {
    let permits = Permits::new(1, MB);
    let held = permits.try_reserve(1).expect("it is empty");
    // Each drops its permit inside its call: that must not become a stack as deep as the line is long.
    let left: Vec<_> = (0..100_000).map(|_| permits.reserve(1, drop)).collect();
    let calls = Calls::default();
    let _ticket = calls.reserve(&permits, 7, 1);
    drop(held);
    assert_eq!(calls.names(), [7]);
    drop(left);
    assert_eq!(usage(&permits), (1, 1));
}

#[test]
fn closing_answers_everyone_in_line_and_whoever_comes() {
    let permits = Permits::new(8, 64 * MB);
    let held = permits.try_reserve(60 * MB).expect("it is empty");
    let calls = Calls::default();
    let _tickets: Vec<_> = (0..10).map(|name| calls.reserve(&permits, name, 60 * MB)).collect();
    permits.close();
    permits.close();
    assert_eq!(calls.names().len(), 10);
    assert!(calls.lock().now.iter().all(|(_, answer)| matches!(answer, Err(Error::Closed))));
    assert!(matches!(permits.try_reserve(1), Err(Error::Closed)));
    drop(held);
    assert_eq!(permits.usage(), (0, 0, 0));
}

#[test]
fn grants_from_many_threads_are_each_made_once() {
    let permits = Permits::new(3, MB);
    let granted = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let (sender, receiver) = std::sync::mpsc::channel();
                    let _ticket = permits.reserve(1, move |permit| sender.send(permit).expect("somebody waits"));
                    let permit = receiver.recv().expect("a grant").expect("it is open");
                    most.fetch_max(permits.usage().0, Ordering::SeqCst);
                    granted.fetch_add(1, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(granted.into_inner(), 4000);
    assert!(most.into_inner() <= 3);
    assert_eq!(permits.usage(), (0, 0, 0));
}

proptest! {
    /// Requests come, leave and end in any order.
    #[test]
    fn limits_and_order_are_kept_and_nobody_is_forgotten(
        max_requests in 1usize..20,
        steps in prop::collection::vec((0u8..5, 0usize..100, prop_oneof![0..MB / 2, MB..40 * MB]), 1..200),
    ) {
        let permits = Permits::new(max_requests, 32 * MB);
        let is_small = |name: usize| max_requests >= 8 && steps[name].2 <= MB / 2;
        let calls = Calls::default();
        let mut tickets: Vec<(usize, Ticket)> = Vec::new();
        let (mut came, mut left) = (0, 0);
        for (name, &(step, which, bytes)) in steps.iter().enumerate() {
            match step {
                0..=2 => {
                    tickets.push((name, calls.reserve(&permits, name, bytes)));
                    came += 1;
                }
                3 if !tickets.is_empty() => {
                    let (name, ticket) = tickets.swap_remove(which % tickets.len());
                    let was_called = calls.lock().ever.contains(&name);
                    drop(ticket);
                    left += usize::from(!was_called);
                }
                _ => {
                    let names = calls.names();
                    if !names.is_empty() {
                        calls.give_back(names[which % names.len()]);
                    }
                }
            }
            let (requests, bytes) = usage(&permits);
            prop_assert!(requests <= max_requests && bytes <= 32 * MB);
        }
        // Whoever still waits is let in as the others go.
        while let Some(&name) = calls.names().first() {
            calls.give_back(name);
        }
        prop_assert_eq!(permits.usage(), (0, 0, 0));
        let called = calls.lock().ever.clone();
        prop_assert_eq!(called.len() + left, came);
        for line in [true, false] {
            let order: Vec<usize> = called.iter().copied().filter(|&name| is_small(name) == line).collect();
            prop_assert!(order.is_sorted_by(|a, b| a < b), "{:?}", order);
        }
    }
}

/// A waiter of an event loop, and how often it was woken.
struct Waiter {
    place: Place,
    woken: Arc<AtomicUsize>,
}

fn enter(room: &Room, event_loop: u64, bytes: usize) -> Waiter {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let wake: Wake = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    Waiter { place: room.enter(event_loop, bytes, wake), woken }
}

impl Waiter {
    fn take(&self) -> Option<Taken> {
        self.place.take().expect("it is open")
    }

    fn woken(&self) -> usize {
        self.woken.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn room_is_taken_in_the_order_of_the_loop_and_its_next_is_woken() {
    let room = Room::new(64 * MB);
    let waiters: Vec<Waiter> = (0..4).map(|_| enter(&room, 1, 28 * MB)).collect();
    assert!(waiters[1].take().is_none(), "it is not the first");
    let first = waiters[0].take().expect("there is room");
    assert_eq!(waiters[1].woken(), 1);
    let _second = waiters[1].take().expect("there is room");
    assert_eq!(waiters[2].woken(), 0, "there is no room for it");
    assert!(waiters[2].take().is_none());
    drop(first);
    assert_eq!((waiters[2].woken(), waiters[3].woken()), (1, 0));
    assert!(waiters[2].take().is_some());
    assert_eq!(room.waiting(), 1);
}

#[test]
fn a_loop_that_is_blocked_holds_up_only_its_own() {
    let room = Room::new(64 * MB);
    let held = enter(&room, 1, 56 * MB).take().expect("it is empty");
    // Never looks again.
    let _blocked = enter(&room, 1, 56 * MB);
    let other = enter(&room, 2, 56 * MB);
    assert!(other.take().is_none());
    drop(held);
    assert_eq!(other.woken(), 1);
    assert!(other.take().is_some());
}

#[test]
fn small_copies_have_an_eighth_that_large_ones_never_take() {
    let room = Room::new(64 * MB);
    let _large = enter(&room, 1, 500 * MB).take().expect("more than all enters alone");
    let small: Vec<_> = (0..8).map(|_| enter(&room, 1, MB).take().expect("an eighth is left")).collect();
    assert!(enter(&room, 1, MB).take().is_none());
    drop(small);
}

#[test]
fn whoever_leaves_the_line_makes_way_and_closing_wakes_all() {
    let room = Room::new(64 * MB);
    let held = enter(&room, 1, 30 * MB).take().expect("it is empty");
    let first = enter(&room, 1, 40 * MB);
    let second = enter(&room, 1, 20 * MB);
    drop(first);
    assert_eq!(second.woken(), 1);
    let third = enter(&room, 1, 40 * MB);
    room.close();
    assert_eq!((second.woken(), third.woken()), (1, 1));
    assert!(matches!(second.place.take(), Err(Error::Closed)) && matches!(third.place.take(), Err(Error::Closed)));
    drop((held, second, third));
    assert_eq!(room.waiting(), 0);
}
