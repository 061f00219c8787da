//! Which waiting items run next: a value. No threads, no clock, no locks; costs and sizes are arguments.
//!
//! The order is *shortest remaining work first, like pages as they came, an eighth of the time for the oldest*; why is in `schedule`.

use std::collections::{BTreeMap, VecDeque};

/// A page in the schedule. Pages are numbered as they arrive, so a smaller number is an older page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

/// Items of one lane may share a run. The order of lanes is the order in which one page's items are served, last first: the later stage
/// first, and of one stage the widest item first, so that no worker waits for a long item that was kept for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Which workers can run it.
    pub group: usize,
    /// Detection 0, orientation 1, recognition 2.
    pub stage: u8,
    /// What else the items of one run have in common: their input's shape, largest dimension first.
    pub shape: [u32; 2],
    /// Which model.
    pub net: u64,
    /// Items in one run, at most.
    pub run_size: usize,
}

/// One unit of work.
#[derive(Debug)]
pub struct Item<T> {
    /// Where it waits.
    pub lane: Lane,
    /// Estimated time of its run.
    pub cost: f64,
    /// Bytes of activations to reserve while it runs; 0 reserves nothing.
    pub bytes: usize,
    /// What the worker needs.
    pub payload: T,
}

/// What a worker was given.
#[derive(Debug)]
pub struct Run<T> {
    /// The items, all of one lane.
    pub items: Vec<(PageId, Item<T>)>,
    /// What they take of the device, to be given back with [`Policy::release`].
    pub claim: Claim,
    /// What runs beside it, or could, is little: it may use all cores.
    pub alone: bool,
}

/// What a run takes of its device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claim {
    /// Reserved bytes.
    pub bytes: usize,
    /// Estimated time.
    cost: f64,
    /// A run waits for its memory, or for that of one beside it.
    pub keeps_memory: bool,
}

/// Pages up to this many times as large as the least work left are its like (of a page that is not detected yet, work is the caller's
/// estimate). Pages of one kind then wait for equally long: simulated, 16 clients with pieces of two sizes, p99 is 9.9 s where it is 13.9
/// without likes and 9.6 in order of arrival. Beyond 3, mixed pages gain nothing, and receipts wait for pages five times as large.
const LIKE: f64 = 3.0;
/// The oldest page that has work gets this share of a group's time, whatever its size, so that nothing starves.
const SHARE_OF_OLDEST: f64 = 1.0 / 8.0;
/// An item that was the first choice of this many picks and did not fit the budget takes the device's turn.
const PICKS_BEFORE_TURN: u32 = 8;

/// Where all else that runs or could run takes less than this share of a run's time, the run gets all cores: the others would have nothing to
/// do for most of it. So it is with a lone page, and with detections so large that the budget holds one of them.
const LITTLE_BESIDE: f64 = 1.0 / 4.0;

#[derive(Debug)]
struct Page<T> {
    /// Work that is known to come and is not queued yet.
    expected: f64,
    /// Work that is queued.
    queued: f64,
    /// Work that was given out.
    served: f64,
    lanes: BTreeMap<Lane, VecDeque<Item<T>>>,
    /// Picks in which this page's reserving item was the first choice and did not fit.
    passed: u32,
}

impl<T> Page<T> {
    fn work_left(&self) -> f64 {
        self.expected + self.queued
    }

    /// All of its work, done and to come.
    fn size(&self) -> f64 {
        self.served + self.work_left()
    }

    fn is_begun(&self) -> bool {
        self.served > 0.0
    }

    fn has_work(&self, group: usize) -> bool {
        self.lanes_of(group).next().is_some()
    }

    fn lanes_of(&self, group: usize) -> impl Iterator<Item = &Lane> {
        self.lanes.keys().rev().filter(move |lane| lane.group == group)
    }
}

/// Time of a group of workers: all of it, and what the oldest page was given as such.
#[derive(Debug, Default, Clone, Copy)]
struct Account {
    total: f64,
    oldest: f64,
}

/// The queue of one device.
#[derive(Debug)]
pub struct Policy<T> {
    pages: BTreeMap<PageId, Page<T>>,
    accounts: BTreeMap<usize, Account>,
    activation_bytes: usize,
    /// Bytes and time of all that runs now, and their number.
    claimed: Claim,
    /// The largest reservation whose memory may still be there.
    kept: usize,
    running: usize,
    turn: Option<PageId>,
}

impl<T> Policy<T> {
    /// An empty queue whose runs may reserve `activation_bytes` together.
    #[must_use]
    pub fn new(activation_bytes: usize) -> Self {
        Self {
            pages: BTreeMap::new(),
            accounts: BTreeMap::new(),
            activation_bytes,
            claimed: Claim::default(),
            kept: 0,
            running: 0,
            turn: None,
        }
    }

    /// Queues items of `page`; `expected` is the page's work that will follow them.
    pub fn push(&mut self, page: PageId, items: impl IntoIterator<Item = Item<T>>, expected: f64) {
        let page = self.pages.entry(page).or_insert_with(|| Page {
            expected: 0.0,
            queued: 0.0,
            served: 0.0,
            lanes: BTreeMap::new(),
            passed: 0,
        });
        page.expected = expected;
        for item in items {
            page.queued += item.cost;
            page.lanes.entry(item.lane).or_default().push_back(item);
        }
    }

    /// Takes a page out; returns what was waiting. Its turn, if it had it, is free again.
    pub fn remove(&mut self, page: PageId) -> Vec<Item<T>> {
        if self.turn == Some(page) {
            self.turn = None;
        }
        self.pages.remove(&page).into_iter().flat_map(|page| page.lanes.into_values().flatten()).collect()
    }

    /// Whether a page has the turn: what is kept free for it nobody else gets.
    #[must_use]
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Takes everything out; what runs keeps its reservation.
    pub fn clear(&mut self) -> Vec<Item<T>> {
        self.turn = None;
        std::mem::take(&mut self.pages).into_values().flat_map(|page| page.lanes.into_values().flatten()).collect()
    }

    /// The next run for a free worker of `group`, or nothing that fits.
    pub fn pick(&mut self, group: usize) -> Option<Run<T>> {
        let (page, lane, as_oldest) = self.choose(group)?;
        let items = self.take(page, lane);
        let cost: f64 = items.iter().map(|(_, item)| item.cost).sum();
        let bytes = items.iter().map(|(_, item)| item.bytes).sum();
        let account = self.accounts.entry(group).or_default();
        account.total += cost;
        account.oldest += if as_oldest { cost } else { 0.0 };
        self.claimed.bytes += bytes;
        let alone = self.claimed.cost + self.work_beside(page) <= cost * LITTLE_BESIDE;
        self.claimed.cost += cost;
        self.running += 1;
        self.kept = self.kept.max(bytes);
        let keeps_memory = self.memory_is_waited_for(group, bytes);
        Some(Run { items, claim: Claim { bytes, cost, keeps_memory }, alone })
    }

    /// Whether the next run that reserves waits for memory that is there, and is to stay at the end of a run with so many bytes `reserved`. A
    /// larger one would need more beside it, so whoever may be next is no larger: the page with the turn, the choice, the shortest. One that
    /// fits already may end before the run that kept memory for it.
    fn memory_is_waited_for(&self, group: usize, reserved: usize) -> bool {
        let most = |id: PageId| {
            let page = self.pages.get(&id)?;
            page.lanes.keys().map(|lane| front_bytes(page, lane)).max().filter(|&bytes| bytes > 0)
        };
        let reserving = self.pages.iter().filter(|&(&id, _)| most(id).is_some());
        let shortest = reserving.map(|(&id, page)| (page.work_left(), id)).min_by(by_work).map(|(_, id)| id);
        let choice = self.choice(group).map(|(id, _)| id);
        let Some(next) = [self.turn, choice, shortest].into_iter().flatten().filter_map(most).max() else {
            return false;
        };
        let waits = reserved == 0 || self.claimed.bytes.saturating_add(next) > self.activation_bytes;
        waits && next <= self.kept
    }

    /// Work that other workers could do beside a run of `page` that has its claim: what fits, and what pages that are begun will bring.
    fn work_beside(&self, page: PageId) -> f64 {
        let works = self.pages.iter().map(|(&id, other)| {
            let fits = other.lanes.keys().any(|lane| self.fits(id, front_bytes(other, lane)));
            let queued = if fits { other.queued } else { 0.0 };
            let expected = if id != page && other.is_begun() { other.expected } else { 0.0 };
            queued + expected
        });
        works.sum()
    }

    /// A run that `pick` returned is over.
    pub fn release(&mut self, claim: Claim) {
        self.claimed.bytes -= claim.bytes;
        self.running -= 1;
        if !claim.keeps_memory {
            self.kept = self.claimed.bytes;
        }
        // Sums of floats leave something behind.
        self.claimed.cost = if self.running == 0 { 0.0 } else { self.claimed.cost - claim.cost };
    }

    /// Whether memory was kept for runs that went, so that nobody is left to take it or to give it back; asked once.
    pub fn has_kept_in_vain(&mut self) -> bool {
        self.running == 0 && self.waiting() == 0 && std::mem::take(&mut self.kept) > 0
    }

    /// Items that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pages.values().flat_map(|page| page.lanes.values()).map(VecDeque::len).sum()
    }

    /// Bytes that running items have reserved.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.claimed.bytes
    }

    fn fits(&self, page: PageId, bytes: usize) -> bool {
        if bytes == 0 || self.claimed.bytes == 0 && self.turn.is_none() {
            return true;
        }
        let others_turn = self.turn.is_some_and(|turn| turn != page);
        !others_turn && (self.claimed.bytes == 0 || self.claimed.bytes + bytes <= self.activation_bytes)
    }

    fn fitting_lane(&self, id: PageId, group: usize) -> Option<Lane> {
        let page = self.pages.get(&id)?;
        page.lanes_of(group).copied().find(|lane| self.fits(id, front_bytes(page, lane)))
    }

    /// Who is next: the page that has the turn, then the oldest where its share is due, then the oldest among the page with the least work
    /// left and its like. The flag says that it was served as the oldest of all. Where the choice does not fit, the page with the least work
    /// left that does is served, and the choice has been passed over.
    fn choose(&mut self, group: usize) -> Option<(PageId, Lane, bool)> {
        if let Some(id) = self.turn
            && let Some(lane) = self.fitting_lane(id, group)
        {
            return Some((id, lane, false));
        }
        let (choice, oldest_is_due) = self.choice(group)?;
        if let Some(lane) = self.fitting_lane(choice, group) {
            return Some((choice, lane, oldest_is_due));
        }
        let with_work = self.pages.iter().filter(|(_, page)| page.has_work(group));
        let mut order: Vec<(f64, PageId)> = with_work.map(|(&id, page)| (page.work_left(), id)).collect();
        order.sort_unstable_by(by_work);
        let next = order.into_iter().find_map(|(_, id)| Some((id, self.fitting_lane(id, group)?, false)));
        self.pass_over(choice);
        next
    }

    /// The page that is next where no one has the turn, and whether as the oldest of all.
    fn choice(&self, group: usize) -> Option<(PageId, bool)> {
        let account = self.accounts.get(&group).copied().unwrap_or_default();
        let oldest_is_due = account.oldest < SHARE_OF_OLDEST * account.total;
        let with_work = || self.pages.iter().filter(|(_, page)| page.has_work(group));
        // The oldest of those with the least.
        let (&shortest, least) = with_work().min_by(|a, b| a.1.work_left().total_cmp(&b.1.work_left()))?;
        // Where the shortest page is begun, no other one is: pages that are begun take memory.
        let is_like =
            |page: &Page<T>| page.size() <= LIKE * least.work_left() && (page.is_begun() || !least.is_begun());
        let (&choice, _) = with_work().find(|&(&id, page)| oldest_is_due || id == shortest || is_like(page))?;
        Some((choice, oldest_is_due))
    }

    fn pass_over(&mut self, id: PageId) {
        let Some(page) = self.pages.get_mut(&id) else { return };
        page.passed += 1;
        if page.passed >= PICKS_BEFORE_TURN && self.turn.is_none() {
            self.turn = Some(id);
        }
    }

    /// Takes an item of `lane` from `page`, then as many more as a run of the lane holds, of this page first, then of the others by work left.
    fn take(&mut self, page: PageId, lane: Lane) -> Vec<(PageId, Item<T>)> {
        let mut items = self.take_from(page, lane, 1, 0, true);
        let bytes = items.iter().map(|(_, item)| item.bytes).sum();
        items.extend(self.take_from(page, lane, lane.run_size - 1, bytes, false));
        if items.iter().any(|(_, item)| item.bytes > 0) && self.turn == Some(page) {
            self.turn = None;
        }
        if items.len() < lane.run_size {
            let mut others: Vec<(f64, PageId)> = self
                .pages
                .iter()
                .filter(|(_, other)| other.lanes.contains_key(&lane))
                .map(|(&id, other)| (other.work_left(), id))
                .collect();
            others.sort_by(by_work);
            for (_, other) in others {
                let bytes = items.iter().map(|(_, item)| item.bytes).sum();
                let missing = lane.run_size - items.len();
                items.extend(self.take_from(other, lane, missing, bytes, false));
            }
        }
        items
    }

    /// Up to `count` items of one page's lane that fit beside `bytes` already taken for the same run; `chosen`: the first one was found to fit.
    fn take_from(
        &mut self,
        id: PageId,
        lane: Lane,
        count: usize,
        mut bytes: usize,
        chosen: bool,
    ) -> Vec<(PageId, Item<T>)> {
        let mut items = Vec::new();
        while items.len() < count {
            let Some(page) = self.pages.get(&id) else { break };
            let Some(next) = page.lanes.get(&lane).and_then(VecDeque::front) else { break };
            let joins = next.bytes == 0 || self.claimed.bytes + bytes + next.bytes <= self.activation_bytes;
            if !joins && !chosen {
                break;
            }
            bytes += next.bytes;
            let Some(page) = self.pages.get_mut(&id) else { break };
            let Some(queue) = page.lanes.get_mut(&lane) else { break };
            let Some(item) = queue.pop_front() else { break };
            if queue.is_empty() {
                page.lanes.remove(&lane);
            }
            page.served += item.cost;
            page.queued = if page.lanes.is_empty() { 0.0 } else { page.queued - item.cost };
            page.passed = 0;
            items.push((id, item));
        }
        items
    }
}

fn front_bytes<T>(page: &Page<T>, lane: &Lane) -> usize {
    page.lanes.get(lane).and_then(VecDeque::front).map_or(0, |item| item.bytes)
}

fn by_work(a: &(f64, PageId), b: &(f64, PageId)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}
