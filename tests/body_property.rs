//! For any frames, cap and cut points: what an attempt sends is what the caller sent, or there is no such attempt.
#![cfg(feature = "http")]

#[path = "common/body.rs"]
mod bodies;

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bodies::{poll, trailers};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use proptest::{collection::vec, option, prelude::*};
use tower::BoxError;
use tower_tenacity::body::{NotRepeatable, RepeatBody, ReplayBody};

#[derive(Clone, Debug)]
struct Sent {
    // The lengths of the data frames.
    frames: Vec<usize>,
    end: End,
    // Which polls, counted, find it pending.
    pending: Vec<bool>,
    knows_length: bool,
    knows_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Plain,
    Trailers,
    Failure,
}

// One attempt: how much it reads, what becomes of it, and of those before that were not dropped.
#[derive(Clone, Debug)]
struct Plan {
    reads: usize,
    held: bool,
    before: Option<Release>,
    // Read through a retry of its own, which makes this many attempts more.
    inner: Option<usize>,
    // Whether another attempt is decided some time before it is made.
    taken_over: bool,
}

#[derive(Clone, Copy, Debug)]
enum Release {
    Dropped,
    // Before the attempt reads for the first time.
    ReadOn,
    // Before each of its reads.
    ReadAlong,
}

fn sent() -> impl Strategy<Value = Sent> {
    let end = prop_oneof![3 => Just(End::Plain), 2 => Just(End::Trailers), 1 => Just(End::Failure)];
    (vec(0_usize..6, 0..8), end, vec(prop::bool::weighted(0.2), 20), any::<bool>(), any::<bool>()).prop_map(
        |(frames, end, pending, knows_length, knows_end)| Sent { frames, end, pending, knows_length, knows_end },
    )
}

fn plan() -> impl Strategy<Value = Plan> {
    let release = prop_oneof![Just(Release::Dropped), Just(Release::ReadOn), Just(Release::ReadAlong)];
    let inner = option::weighted(0.2, 0_usize..3);
    (0_usize..12, prop::bool::weighted(0.3), option::weighted(0.8, release), inner, any::<bool>())
        .prop_map(|(reads, held, before, inner, taken_over)| Plan { reads, held, before, inner, taken_over })
}

/// What has become of the caller's body.
#[derive(Debug, Default)]
struct Log {
    read: usize,
    over: bool,
    failed: bool,
}

impl Log {
    fn is_gone(&self, cap: usize) -> bool {
        self.read > cap || self.failed
    }
}

struct Source {
    sent: Sent,
    left: VecDeque<Bytes>,
    polls: usize,
    log: Rc<RefCell<Log>>,
}

impl Source {
    fn new(sent: &Sent) -> Self {
        // Every byte is another, so that nothing can be mistaken for something else.
        let mut byte = 0;
        let left = sent.frames.iter().map(|length| {
            (0..*length)
                .map(|_| {
                    byte += 1;
                    byte
                })
                .collect()
        });
        Self { left: left.collect(), sent: sent.clone(), polls: 0, log: Rc::default() }
    }

    fn content(&self) -> Vec<u8> {
        self.left.iter().flatten().copied().collect()
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let log = self.log.clone();
        let mut log = log.borrow_mut();
        assert!(!log.failed, "polled after it failed");
        if log.over {
            return Poll::Ready(None);
        }
        self.polls += 1;
        if self.sent.pending.get(self.polls).is_some_and(|pending| *pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(data) = self.left.pop_front() {
            log.read += data.len();
            log.over = self.is_end_stream();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(match self.sent.end {
            End::Failure => {
                log.failed = true;
                Some(Err(io::Error::other("the source failed")))
            }
            End::Trailers => {
                log.over = true;
                Some(Ok(Frame::trailers(trailers())))
            }
            End::Plain => {
                log.over = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.sent.knows_end && self.left.is_empty() && self.sent.end == End::Plain
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.left.iter().map(|data| data.len() as u64).sum();
        if self.sent.knows_length { SizeHint::with_exact(length) } else { SizeHint::new() }
    }
}

/// One attempt's side of a body, checked at every step against what the caller sent.
struct Reader {
    body: ReplayBody<Source>,
    seen: Vec<u8>,
    trailers: bool,
    over: bool,
    error: Option<BoxError>,
    // All of the body was known when the attempt was made.
    whole: bool,
}

impl Reader {
    fn new(body: ReplayBody<Source>) -> Self {
        Self { body, seen: Vec::new(), trailers: false, over: false, error: None, whole: false }
    }

    fn is_reading(&self) -> bool {
        !self.over && self.error.is_none()
    }

    /// Reads on although a later attempt was made, which `gone` says was too late.
    fn read_in_vain(&mut self, content: &[u8], end: End, gone: bool) {
        if !self.is_reading() || self.body.is_end_stream() {
            return;
        }
        let seen = self.seen.len();
        self.read(content, end);
        if !self.whole && !gone {
            let error = self.error.as_ref().expect("it was taken over");
            assert_eq!(error.to_string(), "a later attempt has taken over the body");
            assert_eq!((self.seen.len(), self.over), (seen, false), "and gives nothing");
        }
    }

    /// Reads one frame, if there is one to be had.
    fn read(&mut self, content: &[u8], end: End) {
        self.check(content, end);
        for _ in 0..30 {
            match poll(&mut self.body) {
                Poll::Pending => continue,
                Poll::Ready(None) => self.over = true,
                Poll::Ready(Some(Err(error))) => self.error = Some(error),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.seen.extend_from_slice(&data),
                    Err(frame) => {
                        assert_eq!(frame.into_trailers().unwrap(), trailers());
                        self.trailers = true;
                    }
                },
            }
            break;
        }
        self.check(content, end);
    }

    fn check(&self, content: &[u8], end: End) {
        assert!(content.starts_with(&self.seen), "{:?} of {content:?}", self.seen);
        if self.error.is_some() {
            return;
        }
        let hint = self.body.size_hint();
        let left = (content.len() - self.seen.len()) as u64;
        assert!(hint.lower() <= left && hint.upper().is_none_or(|upper| upper >= left), "{hint:?}, not {left}");
        if self.over || self.body.is_end_stream() {
            assert_eq!(self.seen, content, "cut short");
            assert_eq!(self.trailers, end == End::Trailers);
            assert_ne!(end, End::Failure);
        }
    }
}

fn play(sent: &Sent, cap: usize, plans: &[Plan]) {
    let source = Source::new(sent);
    let (log, content, end) = (source.log.clone(), source.content(), sent.end);
    let (length, empty) = (content.len(), source.is_end_stream());
    let (first, kept) = ReplayBody::new(source, cap).keep();
    assert_eq!(kept.is_none(), sent.knows_length && length > cap && !empty, "kept if it might fit");
    let mut next = Some(first);
    let Some(mut kept) = kept else {
        let mut reader = Reader::new(next.take().unwrap());
        while reader.is_reading() {
            reader.read(&content, end);
        }
        assert_eq!(reader.seen, content, "sent once all the same");
        return;
    };
    // Those that were not dropped.
    let mut held: Vec<Reader> = Vec::new();
    for plan in plans {
        if let Some(Release::Dropped) = plan.before {
            held.clear();
        }
        if next.is_none() && !log.borrow().is_gone(cap) {
            assert_eq!(ReplayBody::check(&kept), Ok(()), "whoever else holds on to it");
        }
        let body = match next.take() {
            Some(body) => body,
            None => {
                let (body, rest) = ReplayBody::again(kept, false);
                kept = rest.unwrap();
                body
            }
        };
        let gone = log.borrow().is_gone(cap);
        let mut read_in_vain = |reads: usize| {
            for reader in &mut held {
                for _ in 0..reads {
                    reader.read_in_vain(&content, end, gone);
                }
            }
        };
        if let Some(Release::ReadOn) = plan.before {
            read_in_vain(20);
        }
        let gone = log.borrow().is_gone(cap);
        let known = empty || log.borrow().over;
        let mut reader = Reader::new(body);
        reader.whole = known;
        let mut inner = None;
        if let Some(attempts) = plan.inner {
            let (mut body, rest) = reader.body.keep();
            inner = rest;
            for attempt in 0..attempts {
                let Some(rest) = inner.take() else { break };
                let mut reader = Reader::new(body);
                for _ in 0..attempt {
                    if reader.is_reading() {
                        reader.read(&content, end);
                    }
                }
                drop(reader);
                (body, inner) = ReplayBody::again(rest, false);
            }
            reader = Reader::new(body);
            reader.whole = empty || log.borrow().over;
        }
        let gone_inside = log.borrow().is_gone(cap);
        for _ in 0..plan.reads {
            if !reader.is_reading() {
                break;
            }
            if let Some(Release::ReadAlong) = plan.before {
                read_in_vain(1);
            }
            reader.read(&content, end);
        }
        drop(inner);
        if gone && plan.reads > 0 && !(known && log.borrow().read <= cap) {
            let error = reader.error.as_ref().expect("there is no such attempt");
            assert!(error.is::<NotRepeatable>());
        }
        if let Some(error) = &reader.error {
            let own = error.is::<io::Error>();
            assert!(own || gone_inside, "it failed for no reason: {error}");
        }
        if plan.held {
            held.push(reader);
        } else {
            drop(reader);
        }
        let (read, gone) = (log.borrow().read, log.borrow().is_gone(cap));
        let expected = if read > cap {
            Err(NotRepeatable::TooLong)
        } else if gone {
            Err(NotRepeatable::Failed)
        } else {
            Ok(())
        };
        assert_eq!(ReplayBody::check(&kept), expected, "{log:?}");
        if plan.taken_over {
            assert_eq!(ReplayBody::take_over(&mut kept), expected);
            held.iter_mut().for_each(|reader| reader.read_in_vain(&content, end, gone));
            assert!(gone || log.borrow().read == read, "nothing was used up");
        }
    }
    drop(next);
    // Read to its end, at last, while some may be stuck.
    let gone = log.borrow().is_gone(cap);
    let mut last = Reader::new(ReplayBody::again(kept, true).0);
    while last.is_reading() {
        last.read(&content, end);
    }
    if !gone {
        assert_eq!(Rc::strong_count(&log), 1, "nobody keeps the body of the caller");
    }
    drop(held);
    match last.error {
        Some(error) if gone => assert!(error.is::<NotRepeatable>()),
        Some(error) => assert!(error.is::<io::Error>() && end == End::Failure && last.seen == content),
        None => assert!(!gone && last.seen == content),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_attempt_sends_what_the_caller_sent(sent in sent(), cap in 0_usize..30, plans in vec(plan(), 0..6)) {
        play(&sent, cap, &plans);
    }
}
