//! The schedule with fake models whose answers one can compute by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use threadsafe_ocr::Error;
use threadsafe_ocr::schedule::policy::{Claim, Item, Lane, PageId, Policy};
use threadsafe_ocr::schedule::worker::{Answers, Pool};
use threadsafe_ocr::schedule::{Model, Place};

fn lane(stage: u8, width: u32, run_size: usize) -> Lane {
    Lane { group: 0, stage, shape: [width, 0], net: 0, run_size }
}

fn item(stage: u8, width: u32, cost: f64, bytes: usize, payload: u64) -> Item<u64> {
    Item { lane: lane(stage, width, 1), cost, bytes, payload }
}

fn picked(policy: &mut Policy<u64>) -> Option<u64> {
    let run = policy.pick(0)?;
    let payload = run.items[0].1.payload;
    policy.release(run.claim);
    Some(payload)
}

/// Of twenty pages with a small item of this cost each, that come one after the other.
fn younger_ones_that_go_past(policy: &mut Policy<u64>, cost: f64) -> usize {
    let mut passed = 0;
    for k in 0..20 {
        policy.push(PageId(10 + k), [item(0, 3, cost, 10, 100 + k)], 0.0);
        if let Some(run) = policy.pick(0) {
            policy.release(run.claim);
            passed += 1;
        }
    }
    passed
}

#[test]
fn a_much_smaller_page_goes_first() {
    let mut policy = Policy::new(1000);
    policy.push(PageId(0), [item(0, 1, 100.0, 0, 1)], 200.0);
    policy.push(PageId(1), [item(0, 1, 10.0, 0, 2)], 20.0);
    assert_eq!(picked(&mut policy), Some(2));
}

#[test]
fn of_like_pages_the_oldest_goes_first_and_a_much_larger_one_is_overtaken() {
    let mut policy = Policy::new(1000);
    policy.push(PageId(0), [item(0, 1, 100.0, 0, 0)], 200.0);
    policy.push(PageId(1), [item(0, 1, 40.0, 0, 1)], 80.0);
    policy.push(PageId(2), [item(0, 1, 20.0, 0, 2)], 40.0);
    // The last one is a fifth of the first one, and half of the second.
    assert_eq!(picked(&mut policy), Some(1));
}

#[test]
fn a_page_that_is_begun_goes_before_an_older_one_that_is_not() {
    let mut policy = Policy::new(1000);
    policy.push(PageId(1), [item(0, 1, 10.0, 0, 10)], 40.0);
    assert_eq!(picked(&mut policy), Some(10));
    policy.push(PageId(1), (11..15).map(|line| item(2, 320, 10.0, 0, line)), 0.0);
    // It came before, and took longer to be decoded.
    policy.push(PageId(0), [item(0, 1, 10.0, 0, 0)], 40.0);
    // 10 of 10, so an eighth is due to the oldest; then the one that is begun.
    assert_eq!((picked(&mut policy), picked(&mut policy)), (Some(0), Some(11)));
    policy.push(PageId(0), [item(0, 1, 10.0, 0, 1)], 40.0);
    assert_eq!(picked(&mut policy), Some(1), "both are begun");
}

#[test]
fn a_like_page_that_does_not_fit_gets_its_turn() {
    let mut policy = Policy::new(100);
    policy.push(PageId(0), [item(0, 1, 1.0, 60, 0)], 0.0);
    let first = policy.pick(0).expect("an empty device takes anything");
    policy.push(PageId(1), [item(0, 2, 20.0, 90, 1)], 0.0);
    let passed = younger_ones_that_go_past(&mut policy, 10.0);
    assert!(passed <= 8, "{passed} younger items went past");
    policy.release(first.claim);
    assert_eq!(picked(&mut policy), Some(1));
}

#[test]
fn a_page_stays_as_large_as_it_is_while_it_is_read() {
    let mut policy = Policy::new(1000);
    policy.push(PageId(0), (0..100).map(|line| item(2, 320, 1.0, 0, line)), 0.0);
    for line in 0..70 {
        assert_eq!(picked(&mut policy), Some(line));
    }
    // 30 of 100 are left, less than a newcomer's 20 times three.
    policy.push(PageId(1), [item(0, 1, 20.0, 0, 1000)], 0.0);
    assert_eq!(picked(&mut policy), Some(1000));
}

#[test]
fn of_one_page_the_latest_stage_and_the_widest_item_go_first() {
    let mut policy = Policy::new(1000);
    policy.push(PageId(0), [item(1, 192, 1.0, 0, 1), item(2, 320, 1.0, 0, 2), item(2, 640, 1.0, 0, 3)], 0.0);
    assert_eq!((picked(&mut policy), picked(&mut policy), picked(&mut policy)), (Some(3), Some(2), Some(1)));
}

#[test]
fn with_nothing_reserved_anything_fits() {
    let mut policy = Policy::new(10);
    policy.push(PageId(0), [item(0, 1, 1.0, 5000, 1)], 0.0);
    assert_eq!(picked(&mut policy), Some(1));
}

#[test]
fn a_run_gets_all_cores_where_there_is_little_to_do_beside_it() {
    let mut policy = Policy::new(100);
    let large = |page: u64| (PageId(page), [item(0, 1, 8.0, 60, page)]);
    let alone = |policy: &mut Policy<u64>| policy.pick(0).map(|run| (run.items[0].1.payload, run.alone));
    policy.push(large(0).0, large(0).1, 20.0);
    assert_eq!(alone(&mut policy), Some((0, true)), "a lone page");
    policy.push(PageId(1), [item(0, 1, 4.0, 0, 1)], 20.0);
    assert_eq!(alone(&mut policy), Some((1, false)), "beside another one");

    let mut policy = Policy::new(100);
    (1..4).for_each(|page| policy.push(large(page).0, large(page).1, 20.0));
    assert_eq!(alone(&mut policy), Some((1, true)), "only one of them fits");

    let mut policy = Policy::new(100);
    policy.push(PageId(0), [item(0, 1, 1.0, 0, 0)], 0.0);
    policy.push(PageId(1), [item(0, 1, 8.0, 150, 1)], 0.0);
    assert_eq!(alone(&mut policy), Some((0, false)), "what is larger than the budget fits where nothing is reserved");

    let mut policy = Policy::new(100);
    policy.push(PageId(0), (0..6).map(|line| item(2, 320, 1.0, 0, line)), 0.0);
    (1..3).for_each(|page| policy.push(large(page).0, large(page).1, 20.0));
    let lines: Vec<_> = (0..6).map(|_| policy.pick(0).expect("a line")).collect();
    assert!(lines.iter().all(|line| !line.alone));
    lines[..4].iter().for_each(|line| policy.release(line.claim));
    assert_eq!(alone(&mut policy), Some((1, true)), "two lines run, a quarter of it");
}

#[test]
fn memory_is_kept_for_a_run_that_waits_for_it_and_is_no_larger() {
    let mut policy = Policy::new(100);
    let push = |policy: &mut Policy<u64>, page: u64, bytes| {
        policy.push(PageId(page), [item(0, 1, 1.0 + page as f64, bytes, page)], 0.0);
    };
    let pick = |policy: &mut Policy<u64>| policy.pick(0).expect("a run");
    push(&mut policy, 0, 60);
    let first = pick(&mut policy);
    assert!(!first.claim.keeps_memory, "nobody waits");
    policy.release(first.claim);

    (0..3).for_each(|page| push(&mut policy, page, 60));
    let kept = [0; 3].map(|_| {
        let run = pick(&mut policy);
        policy.release(run.claim);
        run.claim.keeps_memory
    });
    assert_eq!(kept, [true, true, false], "the last one gives it back");

    (0..2).for_each(|page| push(&mut policy, page, 60));
    let large = pick(&mut policy);
    policy.push(PageId(9), [item(2, 320, 0.5, 0, 9)], 0.0);
    let line = pick(&mut policy);
    assert!(large.claim.keeps_memory && line.claim.keeps_memory, "a line beside it leaves it too");
    policy.release(line.claim);
    policy.release(large.claim);
    let last = pick(&mut policy);
    policy.release(last.claim);

    push(&mut policy, 0, 60);
    push(&mut policy, 1, 30);
    assert!(!pick(&mut policy).claim.keeps_memory, "the other one has memory of its own");

    let mut policy = Policy::new(100);
    (0..3).zip([60, 90, 50]).for_each(|(page, bytes)| push(&mut policy, page, bytes));
    assert!(!pick(&mut policy).claim.keeps_memory, "for the next one it would not be enough, and be there beside more");
}

#[test]
fn memory_that_was_kept_for_a_page_that_left_is_told() {
    let mut policy = Policy::new(100);
    (0..2).for_each(|page| policy.push(PageId(page), [item(0, 1, 1.0, 60, page)], 0.0));
    let run = policy.pick(0).expect("a run");
    assert!(run.claim.keeps_memory);
    policy.remove(PageId(1));
    assert!(!policy.has_kept_in_vain(), "it still runs");
    policy.release(run.claim);
    assert_eq!([policy.has_kept_in_vain(), policy.has_kept_in_vain()], [true, false]);
}

#[test]
fn an_item_that_did_not_fit_eight_times_gets_its_turn_before_smaller_ones() {
    let mut policy = Policy::new(100);
    policy.push(PageId(0), [item(0, 1, 1.0, 60, 0)], 0.0);
    let first = policy.pick(0).expect("an empty device takes anything");
    // The next choice does not fit beside it; small ones of other pages do, until it has the turn.
    policy.push(PageId(1), [item(0, 2, 1.0, 90, 1)], 0.0);
    let passed = younger_ones_that_go_past(&mut policy, 50.0);
    assert!(passed <= 8, "{passed} small items went past");
    policy.release(first.claim);
    assert_eq!(picked(&mut policy), Some(1));
}

#[test]
fn a_page_that_leaves_gives_its_turn_up() {
    let mut policy = Policy::new(100);
    policy.push(PageId(0), [item(0, 1, 1.0, 60, 0)], 0.0);
    let _running = policy.pick(0).expect("it fits");
    policy.push(PageId(1), [item(0, 2, 1.0, 90, 1)], 0.0);
    for _ in 0..10 {
        assert!(policy.pick(0).is_none());
    }
    assert_eq!(policy.remove(PageId(1)).len(), 1);
    policy.push(PageId(2), [item(0, 3, 1.0, 30, 2)], 0.0);
    assert_eq!(picked(&mut policy), Some(2));
}

#[test]
fn two_reservations_that_are_due_at_once_are_served_one_after_the_other() {
    let mut policy = Policy::new(100);
    policy.push(PageId(0), [item(0, 1, 1.0, 60, 0)], 0.0);
    let first = policy.pick(0).expect("an empty device takes anything");
    for page in [1, 2] {
        policy.push(PageId(page), [item(0, 2, 1.0, 90, page)], 0.0);
    }
    // Each is the choice of eight picks and more: the second as the oldest, once the first one has left and come back as a younger page.
    let refuse = |policy: &mut Policy<u64>| (0..20).for_each(|_| assert!(policy.pick(0).is_none()));
    refuse(&mut policy);
    let one = policy.remove(PageId(1));
    refuse(&mut policy);
    policy.push(PageId(3), one, 0.0);
    refuse(&mut policy);
    // Smaller ones that fit beside what runs come all the time.
    for page in 10..40 {
        policy.push(PageId(page), [item(0, 3, 0.1, 10, 100 + page)], 0.0);
        assert!(policy.pick(0).is_none(), "page {page} went past the turn");
    }
    policy.release(first.claim);
    let second = policy.pick(0).expect("it has the turn");
    assert_eq!(second.items[0].1.payload, 2);
    let mut passed = 0;
    while let Some(run) = policy.pick(0) {
        policy.release(run.claim);
        passed += 1;
    }
    assert!(passed <= 8, "{passed} went past the other one");
    policy.release(second.claim);
    assert_eq!(policy.pick(0).expect("it has the turn").items[0].1.payload, 1);
}

/// Workers that take what the policy gives them, in simulated time.
struct Workers {
    policy: Policy<u64>,
    count: usize,
    now: f64,
    /// When each run ends, its reservation, its page and its item.
    running: Vec<(f64, Claim, PageId, Item<u64>)>,
}

impl Workers {
    fn new(count: usize) -> Self {
        Self { policy: Policy::new(usize::MAX), count, now: 0.0, running: Vec::new() }
    }

    /// Gives free workers work; returns what they began.
    fn begin(&mut self) -> Vec<(PageId, u8)> {
        let mut begun = Vec::new();
        while self.running.len() < self.count {
            let Some(mut run) = self.policy.pick(0) else { break };
            let (page, item) = run.items.pop().expect("a run has an item");
            begun.push((page, item.lane.stage));
            self.running.push((self.now + item.cost, run.claim, page, item));
        }
        begun
    }

    /// The run that ends next.
    fn end(&mut self) -> Option<(PageId, Item<u64>)> {
        let order = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
        let (next, when) = self.running.iter().map(|run| run.0).enumerate().min_by(order)?;
        let (_, claim, page, item) = self.running.remove(next);
        self.now = when;
        self.policy.release(claim);
        Some((page, item))
    }
}

proptest! {
    #[test]
    fn like_pages_are_finished_before_others_are_begun(
        workers in 1usize..9,
        ratio in 0.5f64..8.0,
        lines in 1u64..40,
        arrive_together in any::<bool>(),
        youngest_first in any::<bool>(),
    ) {
        const PAGES: u64 = 20;
        const DETECTION: f64 = 100.0;
        let line = DETECTION * ratio / lines as f64;
        let mut workers = Workers::new(workers);
        // Recognition's and detection's cost so far, as `Nets` learns them; the manifest says 2.
        let mut learnt = if arrive_together { (ratio, 1.0) } else { (2.0 * DETECTION, DETECTION) };
        let page = |learnt: (f64, f64)| ([item(0, 1, DETECTION, 0, 0)], DETECTION * 2.0 * learnt.0 / learnt.1);
        let first = if arrive_together { PAGES } else { 1 };
        for id in 0..first {
            let (items, expected) = page(learnt);
            if youngest_first {
                // It was decoded before the older ones.
                workers.policy.push(PageId(first - 1 - id), items, expected);
                workers.begin();
            } else {
                workers.policy.push(PageId(id), items, expected);
            }
        }
        let most = workers.count + if youngest_first { 4 } else { 2 };
        let mut next = first;
        let mut lines_left = std::collections::HashMap::new();
        let mut done = 0;
        loop {
            workers.begin();
            let Some((id, ended)) = workers.end() else { break };
            if ended.lane.stage == 0 {
                learnt = (learnt.0 * 0.95 + DETECTION * ratio, learnt.1 * 0.95 + DETECTION);
                lines_left.insert(id, lines);
                workers.policy.push(id, (0..lines).map(|i| item(2, 320, line, 0, i)), 0.0);
            } else {
                let left = lines_left.get_mut(&id).expect("it was detected");
                *left -= 1;
                if *left == 0 {
                    workers.policy.remove(id);
                    lines_left.remove(&id);
                    done += 1;
                }
            }
            // The first page's detection has taught the ratio.
            while next < PAGES && workers.policy.waiting() < 3 * workers.count {
                let (items, expected) = page(learnt);
                workers.policy.push(PageId(next), items, expected);
                next += 1;
            }
            prop_assert!(lines_left.len() <= most, "{} pages at once", lines_left.len());
        }
        prop_assert_eq!(done, PAGES);
    }

    #[test]
    fn a_large_page_gets_its_eighth_of_the_time_under_an_endless_stream_of_small_ones(
        workers in 1usize..5,
        line in 0.5f64..5.0,
        newcomers in prop::collection::vec(0.1f64..20.0, 1..30),
    ) {
        let mut workers = Workers::new(workers);
        workers.policy.push(PageId(0), (0..500).map(|i| item(2, 320, line, 0, i)), 0.0);
        let mut costs = newcomers.iter().cycle();
        let (mut id, mut all, mut large, mut lines) = (0, 0.0, 0.0, 0);
        while lines < 500 {
            while workers.policy.waiting() < 500 - lines + 10 {
                id += 1;
                let cost = *costs.next().expect("it is endless");
                workers.policy.push(PageId(id), [item(2, 320, cost, 0, 0)], 0.0);
            }
            workers.begin();
            let (page, ended) = workers.end().expect("there is always work");
            all += ended.cost;
            if page == PageId(0) {
                large += ended.cost;
                lines += 1;
            } else {
                workers.policy.remove(page);
            }
            // What runs at the moment is not counted yet.
            prop_assert!(large >= all / 8.0 - 2.0 * line - 20.0, "{large} of {all}");
        }
        prop_assert!(large <= all / 4.0 || line * 250.0 < 30.0, "newcomers that are shorter go first: {large} of {all}");
    }

    #[test]
    fn a_pick_is_the_oldest_page_where_its_eighth_is_due_else_the_oldest_like_the_least_and_of_it_the_last_lane(
        pages in prop::collection::vec(prop::collection::vec((0u8..3, 1u32..4, 1u32..100), 1..8), 1..12),
    ) {
        let mut policy = Policy::new(1000);
        // What waits: page, lane, arrival, cost.
        let mut waiting = Vec::new();
        for (page, items) in pages.iter().enumerate() {
            let page = PageId(page as u64);
            for (i, &(stage, width, cost)) in items.iter().enumerate() {
                waiting.push((page, lane(stage, width, 1), i, f64::from(cost)));
                policy.push(page, [item(stage, width, f64::from(cost), 0, i as u64)], 0.0);
            }
        }
        let (mut all, mut oldest) = (0.0, 0.0);
        while !waiting.is_empty() {
            let work = |page: PageId| waiting.iter().filter(|item| item.0 == page).map(|item| item.3).sum::<f64>();
            let is_due = oldest < all / 8.0;
            let size = |page: PageId| pages[page.0 as usize].iter().map(|item| f64::from(item.2)).sum::<f64>();
            let ids = || waiting.iter().map(|item| item.0);
            let shortest = ids().min_by(|&a, &b| work(a).total_cmp(&work(b)).then(a.cmp(&b))).expect("something waits");
            let like = |page: PageId| page == shortest || size(page) <= 3.0 * work(shortest);
            let page = ids().filter(|&page| is_due || like(page)).min().expect("there is the shortest");
            let last = waiting.iter().filter(|item| item.0 == page).map(|item| item.1).max().expect("it has an item");
            let place = waiting.iter().position(|item| item.0 == page && item.1 == last).expect("it is there");
            let (_, _, arrival, cost) = waiting.remove(place);
            let run = policy.pick(0).expect("everything fits");
            policy.release(run.claim);
            prop_assert_eq!((run.items[0].0, run.items[0].1.lane, run.items[0].1.payload), (page, last, arrival as u64));
            all += cost;
            oldest += if is_due { cost } else { 0.0 };
        }
        prop_assert!(policy.pick(0).is_none());
    }

    #[test]
    fn every_item_leaves_once_and_the_budget_is_kept(
        pages in prop::collection::vec(prop::collection::vec((0u8..3, 1u32..4, 1u32..100, 0usize..120), 1..8), 1..12),
        run_size in 1usize..5,
        hold in 1usize..4,
    ) {
        let mut policy = Policy::new(100);
        let mut expected = 0;
        for (page, items) in pages.iter().enumerate() {
            let items = items.iter().enumerate().map(|(i, &(stage, width, cost, bytes))| Item {
                lane: lane(stage, width, run_size),
                cost: f64::from(cost),
                bytes,
                payload: (page * 100 + i) as u64,
            });
            policy.push(PageId(page as u64), items, 0.0);
        }
        expected += pages.iter().map(Vec::len).sum::<usize>();
        let mut seen = std::collections::HashSet::new();
        let mut running: Vec<Claim> = Vec::new();
        for _ in 0..10_000 {
            match policy.pick(0) {
                Some(run) => {
                    prop_assert!(run.items.len() <= run_size);
                    let lane = run.items[0].1.lane;
                    for (_, item) in &run.items {
                        prop_assert_eq!(item.lane, lane);
                        prop_assert!(seen.insert(item.payload), "an item left twice");
                    }
                    running.push(run.claim);
                    let reserving = running.iter().filter(|claim| claim.bytes > 0).count();
                    prop_assert!(running.iter().map(|claim| claim.bytes).sum::<usize>() <= 100 || reserving == 1);
                }
                None if running.is_empty() => break,
                None => policy.release(running.remove(0)),
            }
            if running.len() >= hold {
                policy.release(running.remove(0));
            }
        }
        prop_assert_eq!(seen.len(), expected);
    }
}

/// Doubles numbers; 13 fails, 14 panics, 15 waits to be stopped, 16 loses the device.
struct Doubler(Arc<AtomicUsize>);

impl Model for Doubler {
    type Item = u64;
    type Output = u64;

    fn run(&self, items: &[&u64], place: &Place) -> threadsafe_ocr::Result<Vec<u64>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if items.contains(&&13) {
            return Err(Error::Inference { stage: "test", message: "thirteen".into() });
        }
        assert!(!items.contains(&&14), "fourteen");
        if items.contains(&&16) {
            return Err(Error::Unavailable("sixteen".into()));
        }
        let late = Instant::now() + Duration::from_secs(10);
        while items.contains(&&15) && !place.stop.is_stopped() && Instant::now() < late {
            std::thread::sleep(Duration::from_millis(1));
        }
        if place.stop.is_stopped() {
            return Err(Error::Closed);
        }
        Ok(items.iter().map(|&&n| n * 2).collect())
    }
}

/// Waits for a future on this thread.
fn block_on<T>(answers: Answers<T>) -> threadsafe_ocr::Result<Vec<T>> {
    struct Signal(Mutex<bool>, Condvar);
    impl std::task::Wake for Signal {
        fn wake(self: Arc<Self>) {
            *self.0.lock().expect("not poisoned") = true;
            self.1.notify_all();
        }
    }
    let signal = Arc::new(Signal(Mutex::new(false), Condvar::new()));
    let waker = Arc::clone(&signal).into();
    let mut answers = std::pin::pin!(answers);
    loop {
        if let std::task::Poll::Ready(result) = answers.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            return result;
        }
        let mut woken = signal.0.lock().expect("not poisoned");
        while !*woken {
            woken = signal.1.wait(woken).expect("not poisoned");
        }
        *woken = false;
    }
}

fn pool(workers: usize) -> (Pool<Doubler>, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let pool = Pool::new(Doubler(Arc::clone(&runs)), 1000);
    let names: Vec<String> = (0..workers).map(|k| format!("test-{k}")).collect();
    pool.add_group(&names).expect("threads");
    (pool, runs)
}

fn numbers(numbers: &[u64], run_size: usize) -> Vec<(Lane, f64, usize, u64)> {
    numbers.iter().map(|&n| (lane(2, 320, run_size), 1.0, 0, n)).collect()
}

#[test]
fn answers_come_in_the_order_of_the_items_from_any_number_of_threads() {
    let (pool, _) = pool(3);
    std::thread::scope(|scope| {
        for t in 0..8u64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..50 {
                    let items: Vec<u64> = (0..11).map(|i| 1000 * (t + 1) + 20 * round + i).collect();
                    let answers =
                        block_on(pool.submit(PageId(t * 100 + round), numbers(&items, 4), 0.0)).expect("answers");
                    assert_eq!(answers, items.iter().map(|n| n * 2).collect::<Vec<_>>());
                }
            });
        }
    });
    pool.shut_down(&Error::Closed).into_iter().for_each(|t| t.join().expect("a worker ends"));
}

#[test]
fn a_failing_item_fails_only_its_own_request() {
    let (pool, _) = pool(1);
    // A first run keeps the worker busy, so that the two pages below share a run.
    let busy = pool.submit(PageId(0), numbers(&[15], 1), 0.0);
    std::thread::sleep(Duration::from_millis(30));
    let bad = pool.submit(PageId(1), numbers(&[13], 4), 0.0);
    let good = pool.submit(PageId(2), numbers(&[1, 2], 4), 0.0);
    pool.cancel(PageId(0));
    assert!(matches!(block_on(bad), Err(Error::Inference { .. })));
    assert_eq!(block_on(good).expect("a neighbour is answered"), [2, 4]);
    drop(busy);
    drop(pool.shut_down(&Error::Closed));
}

#[test]
fn a_panicking_run_is_an_error_and_the_worker_lives_on() {
    let (pool, _) = pool(1);
    assert!(matches!(block_on(pool.submit(PageId(0), numbers(&[14], 1), 0.0)), Err(Error::Inference { .. })));
    assert_eq!(block_on(pool.submit(PageId(1), numbers(&[4], 1), 0.0)).expect("alive"), [8]);
    drop(pool.shut_down(&Error::Closed));
}

#[test]
fn a_page_that_leaves_stops_its_run_and_takes_its_items_along() {
    let (pool, runs) = pool(1);
    let presence = pool.enter(PageId(0));
    let _running = pool.submit(PageId(0), numbers(&[15, 1, 1, 1], 1), 0.0);
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    drop(presence);
    assert_eq!(block_on(pool.submit(PageId(1), numbers(&[7], 1), 0.0)).expect("the worker is free"), [14]);
    assert!(start.elapsed() < Duration::from_secs(5), "the run was not stopped");
    assert_eq!(runs.load(Ordering::SeqCst), 2, "items of the page that left were run");
    drop(pool.shut_down(&Error::Closed));
}

#[test]
fn a_pool_that_ends_answers_everyone() {
    let (pool, _) = pool(1);
    let running = pool.submit(PageId(0), numbers(&[15], 1), 0.0);
    let waiting = pool.submit(PageId(1), numbers(&[1], 1), 0.0);
    std::thread::sleep(Duration::from_millis(30));
    let threads = pool.shut_down(&Error::Closed);
    assert!(matches!(block_on(waiting), Err(Error::Closed)));
    drop(running);
    for thread in threads {
        thread.join().expect("a worker ends");
    }
    assert!(matches!(block_on(pool.submit(PageId(2), numbers(&[1], 1), 0.0)), Err(Error::Closed)));
}

#[test]
fn a_lost_device_answers_everyone_and_its_workers_end() {
    let (pool, runs) = pool(2);
    let neighbour = pool.submit(PageId(0), numbers(&[15], 1), 0.0);
    std::thread::sleep(Duration::from_millis(30));
    let loser = pool.submit(PageId(1), numbers(&[16, 1, 1, 1], 1), 0.0);
    assert!(matches!(block_on(loser), Err(Error::Unavailable(_))));
    // What ran beside it was stopped, and nobody closed it.
    assert!(matches!(block_on(neighbour), Err(Error::Unavailable(message)) if message == "sixteen"));
    let before = runs.load(Ordering::SeqCst);
    let late = block_on(pool.submit(PageId(2), numbers(&[1], 1), 0.0));
    assert!(matches!(late, Err(Error::Unavailable(message)) if message == "sixteen"));
    assert!(matches!(pool.add_group(&["late".into()]), Err(Error::Unavailable(_))));
    assert_eq!(runs.load(Ordering::SeqCst), before, "a lost device was used again");
    pool.shut_down(&Error::Closed).into_iter().for_each(|t| t.join().expect("a worker ends"));
}

#[test]
fn what_belongs_to_a_worker_is_made_on_its_thread_before_the_group_exists() {
    let pool = Pool::new(Doubler(Arc::default()), 1000);
    let made = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&made);
    let name = |worker: usize| format!("test-{worker}");
    let prepare = move |worker| {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        list.lock().expect("not poisoned").push((worker, thread));
        Ok(())
    };
    pool.add_group_with(&[name(0), name(1)], prepare).expect("threads");
    let mut made = made.lock().expect("not poisoned").clone();
    made.sort();
    assert_eq!(made, [(0, name(0)), (1, name(1))]);
    assert_eq!(block_on(pool.submit(PageId(0), numbers(&[1, 2], 1), 0.0)).expect("they work"), [2, 4]);

    // One worker that cannot start is the group's error, and no thread of the group stays.
    let fails = |worker| if worker == 1 { Err(Error::Unavailable("no card".into())) } else { Ok(()) };
    assert!(matches!(pool.add_group_with(&[name(2), name(3)], fails), Err(Error::Unavailable(m)) if m == "no card"));
    assert!(matches!(pool.add_group_with(&[name(4)], |_| panic!("at the start")), Err(Error::Unavailable(_))));
    assert_eq!(block_on(pool.submit(PageId(1), numbers(&[3], 1), 0.0)).expect("the others work on"), [6]);
    pool.shut_down(&Error::Closed).into_iter().for_each(|t| t.join().expect("every thread ends"));
}
