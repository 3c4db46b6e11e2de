//! A server in memory that breaks in every way a server breaks, when it is told to.
#![allow(dead_code, unreachable_pub)]

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tower_service::Service;
use tower_tenacity::timeout::Deadline;

/// What the server does with those who come from now on. All spans are in the unit that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It answers at once.
    Fine,
    /// It answers after so many milliseconds.
    Slow { millis: u32 },
    /// It takes requests and never answers them.
    Stalled,
    /// Connections break.
    Down,
    /// It is up, and fails.
    Failing,
    /// It throttles, and says for how many seconds or does not.
    Throttling { seconds: Option<u32> },
    /// A quota is used up for so many seconds.
    UsedUp { seconds: u32 },
    /// The requests are wrong.
    Refusing,
    /// It cannot be made ready: no connection can be had.
    Unready,
    /// It gets ready some time, not now.
    Busy,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Disconnected,
    Failed,
    Throttled { retry_after: Option<Duration> },
    UsedUp { span: Duration },
    Wrong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

/// A request: when its answer is of no use any more, and something that tells whether it is still kept anywhere.
#[derive(Clone, Debug)]
pub struct Ask {
    pub deadline: Deadline,
    pub trace: Arc<()>,
}

/// One attempt, as the server sees it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub deadline: Instant,
    /// When it was answered or given up.
    pub gone: Option<Instant>,
}

/// Clones are connections to one server. Panics if it is called without being ready.
pub struct Server {
    shared: Arc<Shared>,
    ready: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    restart: Notify,
}

struct State {
    mood: Mood,
    waiting: Vec<Waker>,
    arrivals: Vec<Arrival>,
    under_way: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { mood: Mood::Fine, waiting: Vec::new(), arrivals: Vec::new(), under_way: 0 }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub fn new() -> Self {
        Self { shared: Arc::default(), ready: false }
    }

    pub fn set(&self, mood: Mood) {
        let waiting = {
            let mut state = self.shared.lock();
            state.mood = mood;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What it was working on is lost, and whoever waits for it is told.
    pub fn restart(&self) {
        self.shared.restart.notify_waiters();
    }

    pub fn mood(&self) -> Mood {
        self.shared.lock().mood
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.lock().arrivals.clone()
    }

    /// How many attempts it is working on.
    pub fn under_way(&self) -> usize {
        self.shared.lock().under_way
    }
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), ready: false }
    }
}

// Counts an attempt until it is answered or dropped.
struct UnderWay {
    shared: Arc<Shared>,
    number: usize,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.under_way -= 1;
        state.arrivals[self.number].gone = Some(Instant::now());
    }
}

impl Service<Ask> for Server {
    type Response = ();
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut state = self.shared.lock();
        match state.mood {
            Mood::Unready => Poll::Ready(Err(Fault::Disconnected)),
            Mood::Busy => {
                state.waiting.push(cx.waker().clone());
                Poll::Pending
            }
            _ => {
                self.ready = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        let shared = self.shared.clone();
        let mut state = self.shared.lock();
        let under_way = UnderWay { shared: shared.clone(), number: state.arrivals.len() };
        state.arrivals.push(Arrival { at: Instant::now(), deadline: ask.deadline.moment(), gone: None });
        state.under_way += 1;
        let mood = state.mood;
        drop(state);
        Box::pin(async move {
            let (_under_way, _ask) = (under_way, ask);
            let restart = shared.restart.notified();
            let answer = async {
                match mood {
                    Mood::Fine | Mood::Unready | Mood::Busy => {}
                    Mood::Slow { millis } => sleep(Duration::from_millis(millis.into())).await,
                    Mood::Stalled => std::future::pending().await,
                    Mood::Down => return Err(Fault::Disconnected),
                    Mood::Failing => return Err(Fault::Failed),
                    Mood::Throttling { seconds } => {
                        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds.into()));
                        return Err(Fault::Throttled { retry_after });
                    }
                    Mood::UsedUp { seconds } => {
                        return Err(Fault::UsedUp { span: Duration::from_secs(seconds.into()) });
                    }
                    Mood::Refusing => return Err(Fault::Wrong),
                }
                Ok(())
            };
            tokio::select! {
                biased;
                answer = answer => answer,
                () = restart => Err(Fault::Disconnected),
            }
        })
    }
}
