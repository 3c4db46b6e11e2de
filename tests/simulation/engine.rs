//! The world: Poisson arrivals, a server with a queue, attempts that time out. Virtual time, in nanoseconds.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// An error that came back at once: an overloaded or broken server.
    Failed,
    /// Nothing came back in time.
    TimedOut,
}

/// A process that makes calls: what its calls share, and what it does after each attempt.
pub trait Client: Sized {
    /// What belongs to one call.
    type Call;

    fn begin(&mut self, now: u64) -> Self::Call;

    /// How long to wait for another attempt, or `None` for no more. `attempt` counts from 1, `elapsed` since the first.
    fn after(&mut self, call: &mut Self::Call, now: u64, attempt: u32, elapsed: u64, outcome: Outcome) -> Option<u64>;

    /// The retry is sent.
    fn resend(&mut self, call: &mut Self::Call) {
        let _ = call;
    }

    /// The call is over.
    fn end(&mut self, call: &mut Self::Call) {
        let _ = call;
    }
}

/// A stretch of time in which something is other than usual.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: u64,
    pub until: u64,
}

impl Span {
    pub const fn secs(from: u64, until: u64) -> Self {
        Self { from: from * SECOND, until: until * SECOND }
    }

    const fn holds(self, now: u64) -> bool {
        self.from <= now && now < self.until
    }
}

/// How calls arrive.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Calls per second of all clients together, at random.
    Open(f64),
    /// This many workers, each with one call at a time.
    Closed(usize),
    /// This many calls, all at the start.
    Herd(usize),
}

/// One scenario.
#[derive(Clone, Debug)]
pub struct World {
    pub clients: usize,
    pub load: Load,
    /// How long calls arrive.
    pub duration: u64,
    /// Workers of the server; `None` for a server without limits.
    pub workers: Option<usize>,
    /// How long an answer takes a worker on average (exponentially distributed).
    pub service: u64,
    /// How many may wait for a worker; beyond, the answer is a fast error.
    pub queue: usize,
    /// The share of attempts that fail at once, and when.
    pub failing: (f64, Span),
    /// The speed of the server, as a share of the usual one, and when.
    pub slowed: (f64, Span),
    /// There and back.
    pub round_trip: u64,
    pub attempt_timeout: u64,
    /// A call that takes longer is worth nothing.
    pub deadline: u64,
}

impl World {
    /// 1000 answers per second: ten workers, 10 ms each.
    pub fn new(clients: usize, load: Load, seconds: u64) -> Self {
        let never = Span { from: 0, until: 0 };
        Self {
            clients,
            load,
            duration: seconds * SECOND,
            workers: Some(10),
            service: 10 * MILLISECOND,
            queue: usize::MAX,
            failing: (0.0, never),
            slowed: (1.0, never),
            round_trip: 5 * MILLISECOND,
            attempt_timeout: SECOND,
            deadline: 30 * SECOND,
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub calls: u64,
    pub attempts: u64,
    /// Calls answered within their deadline.
    pub answered: u64,
    /// By the second in which it was sent, or answered, or made.
    pub attempts_at: Vec<u32>,
    pub answered_at: Vec<u32>,
    pub calls_at: Vec<u32>,
    /// Arrivals at the server by 20 ms.
    pub arrivals_20ms: Vec<u32>,
    /// First retries by the second.
    pub first_retries_at: Vec<u32>,
    /// When the last call ended.
    pub ended: u64,
    /// How long answered calls took, in milliseconds.
    pub latencies: Vec<u32>,
}

fn count(series: &mut Vec<u32>, index: u64) {
    let index = index as usize;
    if series.len() <= index {
        series.resize(index + 1, 0);
    }
    series[index] += 1;
}

impl Report {
    /// Attempts per call.
    pub fn amplification(&self) -> f64 {
        self.attempts as f64 / self.calls.max(1) as f64
    }

    /// The share of calls that were answered in time.
    pub fn success(&self) -> f64 {
        self.answered as f64 / self.calls.max(1) as f64
    }

    /// Attempts per call made in `[from, until)` seconds.
    pub fn amplification_in(&self, from: usize, until: usize) -> f64 {
        sum(&self.attempts_at, from, until) as f64 / sum(&self.calls_at, from, until).max(1) as f64
    }

    /// Calls made in `[from, until)` seconds, less those answered then.
    pub fn lost(&self) -> u64 {
        self.calls - self.answered
    }

    /// The most attempts in any second of `[from, until)`.
    pub fn peak(&self, from: usize, until: usize) -> u32 {
        self.attempts_at.iter().take(until).skip(from).copied().max().unwrap_or(0)
    }

    /// Seconds after `trigger` until the answers are back at 95 % of the calls over ten seconds, and 90 % over the first
    /// three of them; `None` if that never happens.
    pub fn recovery(&self, trigger: usize, end: usize) -> Option<usize> {
        let share = |from: usize, length: usize| {
            let calls = sum(&self.calls_at, from, from + length);
            sum(&self.answered_at, from, from + length) as f64 / calls.max(1) as f64
        };
        (trigger..end.saturating_sub(10))
            .find(|&at| share(at, 10) >= 0.95 && share(at, 3) >= 0.9)
            .map(|at| at - trigger)
    }

    /// The latency that `share` of the answered calls stayed below, in milliseconds.
    pub fn percentile(&self, share: f64) -> u32 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() as f64 * share) as usize).or(sorted.last()).copied().unwrap_or(0)
    }
}

fn sum(series: &[u32], from: usize, until: usize) -> u64 {
    series.iter().take(until).skip(from).map(|&count| u64::from(count)).sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    // Call, number of the attempt.
    Send(usize, u32),
    Arrive(usize, u32),
    // The worker is free again and has an answer to this.
    Done(usize, u32),
    Back(usize, u32, bool),
    TimeOut(usize, u32),
}

struct Call<C> {
    client: usize,
    began: u64,
    attempt: u32,
    state: C,
    // The number comes back in events of attempts long gone.
    serial: u32,
}

struct Simulation<'a, C: Client> {
    world: &'a World,
    clients: Vec<C>,
    random: fastrand::Rng,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    calls: Vec<Option<Call<C::Call>>>,
    free: Vec<usize>,
    serials: u32,
    busy: usize,
    waiting: VecDeque<(usize, u32)>,
    report: Report,
}

/// Plays `world` with clients made by `client`.
pub fn run<C: Client>(world: &World, seed: u64, client: impl FnMut(usize) -> C) -> Report {
    let mut simulation = Simulation {
        world,
        clients: (0..world.clients).map(client).collect(),
        random: fastrand::Rng::with_seed(seed),
        now: 0,
        order: 0,
        events: BinaryHeap::new(),
        calls: Vec::new(),
        free: Vec::new(),
        serials: 0,
        busy: 0,
        waiting: VecDeque::new(),
        report: Report::default(),
    };
    simulation.play();
    simulation.report
}

impl<C: Client> Simulation<'_, C> {
    fn play(&mut self) {
        match self.world.load {
            Load::Open(_) => self.schedule(0, Event::Call),
            Load::Closed(count) | Load::Herd(count) => (0..count).for_each(|_| self.schedule(0, Event::Call)),
        }
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            self.now = now;
            match event {
                Event::Call => self.arrive_call(),
                Event::Send(call, serial) => self.send(call, serial),
                Event::Arrive(call, serial) => self.arrive(call, serial),
                Event::Done(call, serial) => self.done(call, serial),
                Event::Back(call, serial, answered) => {
                    self.settle(call, serial, if answered { Outcome::Answered } else { Outcome::Failed });
                }
                Event::TimeOut(call, serial) => self.settle(call, serial, Outcome::TimedOut),
            }
        }
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now.saturating_add(after), self.order, event)));
    }

    fn exponential(&mut self, mean: f64) -> u64 {
        (-mean * (1.0 - self.random.f64()).ln()) as u64
    }

    fn arrive_call(&mut self) {
        if self.now >= self.world.duration {
            return;
        }
        if let Load::Open(rate) = self.world.load {
            let gap = self.exponential(SECOND as f64 / rate);
            self.schedule(gap, Event::Call);
        }
        let client = self.random.usize(..self.clients.len());
        let state = self.clients[client].begin(self.now);
        let call = Call { client, began: self.now, attempt: 0, state, serial: 0 };
        let index = match self.free.pop() {
            Some(index) => {
                self.calls[index] = Some(call);
                index
            }
            None => {
                self.calls.push(Some(call));
                self.calls.len() - 1
            }
        };
        self.report.calls += 1;
        count(&mut self.report.calls_at, self.now / SECOND);
        self.send(index, 0);
    }

    fn send(&mut self, index: usize, serial: u32) {
        let Some(call) = self.calls[index].as_mut().filter(|call| call.serial == serial) else { return };
        call.attempt += 1;
        self.serials = self.serials.wrapping_add(1).max(1);
        call.serial = self.serials;
        let serial = call.serial;
        if call.attempt > 1 {
            self.clients[call.client].resend(&mut call.state);
            if call.attempt == 2 {
                count(&mut self.report.first_retries_at, self.now / SECOND);
            }
        }
        self.report.attempts += 1;
        count(&mut self.report.attempts_at, self.now / SECOND);
        self.schedule(self.world.round_trip / 2, Event::Arrive(index, serial));
        self.schedule(self.world.attempt_timeout, Event::TimeOut(index, serial));
    }

    fn arrive(&mut self, index: usize, serial: u32) {
        count(&mut self.report.arrivals_20ms, self.now / (20 * MILLISECOND));
        let (share, span) = self.world.failing;
        let failing = span.holds(self.now) && self.random.f64() < share;
        match self.world.workers {
            _ if failing => self.schedule(self.world.round_trip / 2, Event::Back(index, serial, false)),
            None => self.schedule(self.world.round_trip / 2, Event::Back(index, serial, true)),
            Some(workers) if self.busy < workers => self.serve(index, serial),
            Some(_) if self.waiting.len() < self.world.queue => self.waiting.push_back((index, serial)),
            Some(_) => self.schedule(self.world.round_trip / 2, Event::Back(index, serial, false)),
        }
    }

    // The server cannot tell that nobody waits for an answer any more.
    fn serve(&mut self, index: usize, serial: u32) {
        self.busy += 1;
        let (speed, span) = self.world.slowed;
        let speed = if span.holds(self.now) { speed } else { 1.0 };
        let time = self.exponential(self.world.service as f64 / speed);
        self.schedule(time, Event::Done(index, serial));
    }

    fn done(&mut self, index: usize, serial: u32) {
        self.schedule(self.world.round_trip / 2, Event::Back(index, serial, true));
        self.busy -= 1;
        if let Some((index, serial)) = self.waiting.pop_front() {
            self.serve(index, serial);
        }
    }

    fn settle(&mut self, index: usize, serial: u32, outcome: Outcome) {
        let Some(call) = self.calls[index].as_mut().filter(|call| call.serial == serial) else { return };
        let elapsed = self.now - call.began;
        let client = &mut self.clients[call.client];
        let again = client.after(&mut call.state, self.now, call.attempt, elapsed, outcome);
        // What is still under way belongs to an attempt that is over.
        self.serials = self.serials.wrapping_add(1).max(1);
        call.serial = self.serials;
        if let Some(delay) = again.filter(|delay| elapsed.saturating_add(*delay) < self.world.deadline) {
            let serial = call.serial;
            self.schedule(delay, Event::Send(index, serial));
            return;
        }
        client.end(&mut call.state);
        self.calls[index] = None;
        self.free.push(index);
        self.report.ended = self.now;
        if outcome == Outcome::Answered && elapsed <= self.world.deadline {
            self.report.answered += 1;
            count(&mut self.report.answered_at, self.now / SECOND);
            self.report.latencies.push((elapsed / MILLISECOND) as u32);
        }
        if let Load::Closed(_) = self.world.load {
            self.schedule(0, Event::Call);
        }
    }
}
