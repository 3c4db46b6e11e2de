//! What is sent again is what was sent at first, or nothing is sent again (laws 3 and 15).
#![cfg(feature = "http")]

#[path = "common/body.rs"]
mod bodies;

use std::{
    cell::Cell,
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use allocation_counter::measure;
use axum::{
    Router,
    body::{Body as AxumBody, to_bytes},
    routing::post,
};
use bodies::{Ends, Hint, Step, Steps, Wakes, data, next, next_data, poll, read, tracked, trailers};
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    Attempt, Decision, Keep, Policy, Retry, RetryLayer, RetryPolicy, StopReason,
    body::{
        BodyTooLarge, CollectBody, CollectBodyLayer, CollectedBody, KeptBody, NotRepeatable, RepeatBody, ReplayBody,
        ReplayBodyLayer, ReplayBodyService,
    },
    classify,
    hooks::Delay,
    policy::http::FlatCopy,
    wait,
};

type Replay = ReplayBody<Steps>;

fn kept(body: Steps, cap: usize) -> (Replay, KeptBody<Steps>) {
    let (first, kept) = ReplayBody::new(body, cap).keep();
    (first, kept.expect("the body can be kept"))
}

fn again(kept: KeptBody<Steps>) -> (Replay, KeptBody<Steps>) {
    let (body, kept) = Replay::again(kept, false);
    (body, kept.expect("it was not the last"))
}

fn reason(error: &BoxError) -> Option<NotRepeatable> {
    error.downcast_ref().copied()
}

fn text(frames: &[Bytes]) -> String {
    String::from_utf8(frames.concat()).unwrap()
}

#[test]
fn frames_and_trailers_are_sent_again_without_a_copy() {
    let sent = [Bytes::from(vec![b'a'; 10]), Bytes::from(vec![b'b'; 20]), Bytes::from(vec![b'c'; 30])];
    let steps = sent.iter().cloned().map(Step::Data).chain([Step::Trailers(trailers())]);
    let (body, mut kept) = kept(Steps::new(steps), 60);
    let mut attempts = vec![read(body).unwrap()];
    for _ in 0..3 {
        assert_eq!(Replay::check(&kept), Ok(()));
        let (body, rest) = again(kept);
        attempts.push(read(body).unwrap());
        kept = rest;
    }
    attempts.push(read(Replay::again(kept, true).0).unwrap());
    for (frames, read_trailers) in &attempts {
        let places: Vec<_> = frames.iter().map(|frame| (frame.as_ptr(), frame.len())).collect();
        assert_eq!(places, sent.each_ref().map(|frame| (frame.as_ptr(), frame.len())));
        assert_eq!(*read_trailers, Some(trailers()));
    }
    assert_eq!(attempts.len(), 5);
}

#[test]
fn length_and_end_are_exact_at_every_step() {
    // What the wrapped body says, the wrapper says; later attempts know it as well as the first.
    let steps = || Steps::new([data("12345"), data("678"), data("90")]).hint(Hint::Honest).ends(Ends::Honest);
    let lengths = |mut body: Replay| {
        let mut seen = vec![(body.size_hint().exact(), body.is_end_stream())];
        while next(&mut body).is_some() {
            seen.push((body.size_hint().exact(), body.is_end_stream()));
        }
        seen
    };
    let expected = [(Some(10), false), (Some(5), false), (Some(2), false), (Some(0), true)];
    let (body, rest) = kept(steps(), 10);
    assert_eq!(lengths(body), expected);
    let (body, rest) = again(rest);
    assert_eq!(lengths(body), expected);
    assert_eq!(lengths(Replay::again(rest, true).0), expected, "an attempt that gives its frames away");

    for cut in 0..3 {
        let (mut body, rest) = kept(steps(), 10);
        for _ in 0..cut {
            next(&mut body);
        }
        drop(body);
        let (body, rest) = again(rest);
        assert_eq!(lengths(body), expected, "half replayed, half streamed, after {cut}");
        assert_eq!(lengths(Replay::again(rest, true).0), expected);
    }
}

#[test]
fn a_body_of_unknown_length_has_a_known_one_once_it_was_read() {
    let (body, rest) = kept(Steps::new([data("abc"), data("de")]), 10);
    assert_eq!(body.size_hint().exact(), None);
    read(body).unwrap();
    let (body, rest) = again(rest);
    assert_eq!(body.size_hint().exact(), Some(5));
    drop((body, rest));

    let (mut body, rest) = kept(Steps::new([data("abc"), data("de")]), 10);
    next(&mut body);
    drop(body);
    let (body, _) = again(rest);
    assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (3, None), "three bytes, and then who knows");
}

#[test]
fn exactly_the_cap_is_kept_and_not_a_byte_more() {
    let (body, rest) = kept(Steps::new([data("12345"), data("67890")]), 10);
    assert_eq!(text(&read(body).unwrap().0), "1234567890");
    assert_eq!(Replay::check(&rest), Ok(()));

    let (body, rest) =
        kept(Steps::new([data("12345"), data("67890"), data("!"), data("more"), Step::Trailers(trailers())]), 10);
    let (frames, end) = read(body).unwrap();
    assert_eq!((text(&frames).as_str(), end), ("1234567890!more", Some(trailers())), "streamed on to its end");
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::TooLong));
    let (body, rest) = again(rest);
    assert!(!body.is_end_stream());
    let error = read(body).unwrap_err();
    assert_eq!(reason(&error), Some(NotRepeatable::TooLong), "never cut short");
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::TooLong), "and that does not change");
}

#[test]
fn what_was_kept_is_dropped_as_soon_as_the_cap_is_passed() {
    let (first, first_alive) = tracked(6);
    let (second, second_alive) = tracked(6);
    let (mut body, rest) = kept(Steps::new([first, second, data("rest")]), 10);
    drop(next(&mut body));
    assert_eq!(first_alive.load(SeqCst), 1, "it is kept");
    drop(next(&mut body));
    assert_eq!((first_alive.load(SeqCst), second_alive.load(SeqCst)), (0, 0));
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::TooLong), "although the attempt goes on");
    let (body, kept) = body.keep();
    assert!(kept.is_none(), "what is left of it is not kept as if it were a body");
    assert_eq!(text(&read(body).unwrap().0), "rest");
}

#[test]
fn a_body_known_to_be_too_long_is_not_recorded_at_all() {
    let (step, alive) = tracked(11);
    let measured = measure(|| {
        let body = Steps::new([]).hint(Hint::Lie { lower: 11, upper: None });
        let (body, kept) = ReplayBody::new(body, 10).keep();
        assert!(kept.is_none());
        drop(body);
    });
    let bare = measure(|| drop(Steps::new([])));
    assert_eq!(measured.count_total, bare.count_total);

    let (mut body, kept) = ReplayBody::new(Steps::new([step]).hint(Hint::Honest), 10).keep();
    assert!(kept.is_none());
    drop(next(&mut body));
    assert_eq!(alive.load(SeqCst), 0);
}

#[test]
fn a_half_sent_body_is_taken_over() {
    let steps = [data("aa"), data("bb"), Step::Pending, data("cc"), data("dd"), Step::Trailers(trailers())];
    let steps = Steps::new(steps);
    let (polls, alive) = (steps.polls(), steps.alive());
    let (mut body, rest) = kept(steps, 100);
    assert_eq!(next_data(&mut body), "aa");
    assert_eq!(Replay::check(&rest), Ok(()));
    drop(body);
    assert_eq!(Replay::check(&rest), Ok(()));
    assert_eq!(polls.load(SeqCst), 1);

    // The second attempt gets further, and what it reads is kept, too.
    let (mut body, rest) = again(rest);
    for expected in ["aa", "bb", "cc"] {
        assert_eq!(next_data(&mut body), expected);
    }
    drop(body);
    // The third does not get as far as the second.
    let (mut body, rest) = again(rest);
    assert_eq!(next_data(&mut body), "aa");
    drop(body);
    let (body, rest) = again(rest);
    assert_eq!(alive.load(SeqCst), 1);
    let (frames, end) = read(body).unwrap();
    assert_eq!((text(&frames).as_str(), end), ("aabbccdd", Some(trailers())));
    assert_eq!(alive.load(SeqCst), 0, "a body that was read is not held any longer");
    assert_eq!(text(&read(again(rest).0).unwrap().0), "aabbccdd");
}

#[test]
fn the_cap_counts_what_all_attempts_have_read() {
    let (mut body, rest) = kept(Steps::new([data("aaaa"), data("bbbb"), data("cccc")]), 10);
    next(&mut body);
    drop(body);
    let (mut body, rest) = again(rest);
    next(&mut body);
    next(&mut body);
    drop(body);
    assert_eq!(Replay::check(&rest), Ok(()), "eight bytes");
    let (body, rest) = again(rest);
    assert_eq!(text(&read(body).unwrap().0), "aaaabbbbcccc");
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::TooLong), "twelve bytes");
}

/// Whether an attempt was told that a later one has the body. It is told once.
fn is_taken_over<B: Body<Error: Into<BoxError>> + Unpin>(body: &mut ReplayBody<B>) -> bool {
    let error = next(body).expect("it is told").unwrap_err();
    error.to_string() == "a later attempt has taken over the body" && next(body).is_none() && body.is_end_stream()
}

#[test]
fn a_later_attempt_takes_over_from_the_one_that_still_reads() {
    let steps = Steps::new([data("aa"), data("bb"), data("cc")]).hint(Hint::Honest);
    let polls = steps.polls();
    let (mut old, rest) = kept(steps, 100);
    next(&mut old);
    let (mut new, rest) = again(rest);
    assert_eq!(new.size_hint().exact(), Some(6), "the length is that of the whole body");
    assert!(!new.is_end_stream());
    assert_eq!(next_data(&mut new), "aa");
    assert_eq!(next_data(&mut new), "bb");
    assert_eq!(polls.load(SeqCst), 2);
    // The old one, which is still there, knows nothing of the length and reads nothing.
    assert_eq!((old.size_hint().lower(), old.size_hint().upper()), (0, None));
    assert!(is_taken_over(&mut old));
    assert_eq!(polls.load(SeqCst), 2);
    assert_eq!(Replay::check(&rest), Ok(()), "though the new one reads it");
    assert_eq!(text(&read(new).unwrap().0), "cc");
    assert_eq!(Replay::check(&rest), Ok(()));
    assert_eq!(text(&read(again(rest).0).unwrap().0), "aabbcc");
}

#[test]
fn an_attempt_that_is_over_reads_nothing_although_the_later_one_has_not_begun() {
    let steps = Steps::new([data("aa"), data("bb")]);
    let polls = steps.polls();
    let (mut old, rest) = kept(steps, 100);
    next(&mut old);
    let (new, rest) = again(rest);
    assert!(is_taken_over(&mut old));
    assert_eq!(polls.load(SeqCst), 1);
    assert_eq!(text(&read(new).unwrap().0), "aabb");
    drop(rest);
}

#[test]
fn of_all_attempts_the_newest_has_the_body() {
    let (mut first, rest) = kept(Steps::new([data("aa"), data("bb"), data("cc")]), 100);
    next(&mut first);
    let (mut second, rest) = again(rest);
    assert_eq!(next_data(&mut second), "aa");
    assert_eq!(next_data(&mut second), "bb");
    let (mut third, rest) = again(rest);
    let (fourth, rest) = again(rest);
    assert!(is_taken_over(&mut third) && is_taken_over(&mut first) && is_taken_over(&mut second));
    assert_eq!(text(&read(fourth).unwrap().0), "aabbcc");
    // Not even what was read to its end is sent by those that were taken over before.
    let (mut body, kept_body) = kept(Steps::new([data("aa")]), 100);
    let (new, _rest) = again(kept_body);
    read(new).unwrap();
    assert!(is_taken_over(&mut body));
    drop(rest);
}

#[test]
fn an_attempt_that_was_taken_over_does_not_hold_back_the_one_after() {
    // The first is stuck for good.
    let (mut stuck, rest) = kept(Steps::new([data("aa"), data("bb")]), 100);
    next(&mut stuck);
    let (mut second, rest) = again(rest);
    next(&mut second);
    drop(second);
    assert_eq!(Replay::check(&rest), Ok(()));
    assert_eq!(text(&read(Replay::again(rest, true).0).unwrap().0), "aabb");
    assert!(is_taken_over(&mut stuck));
}

#[test]
fn whoever_waits_for_the_body_is_woken_when_it_is_taken_over_and_the_newest_when_it_goes_on() {
    struct Gated(Steps, Arc<Mutex<Option<Waker>>>);
    impl Body for Gated {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bodies::Given<Steps>> {
            if self.0.polls().load(SeqCst) == 1 {
                *self.1.lock().unwrap() = Some(cx.waker().clone());
                let _ = Pin::new(&mut self.0).poll_frame(&mut Context::from_waker(Waker::noop()));
                return Poll::Pending;
            }
            if self.1.lock().unwrap().is_some() {
                *self.1.lock().unwrap() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    let gate = Arc::default();
    let steps = Steps::new([data("aa"), Step::Pending, data("bb")]);
    let (mut old, rest) = ReplayBody::new(Gated(steps, Arc::clone(&gate)), 100).keep();
    let (mut new, rest) = {
        assert_eq!(next_data(&mut old), "aa");
        let (wakes, waker) = Wakes::new();
        let cx = &mut Context::from_waker(&waker);
        assert!(Pin::new(&mut old).poll_frame(cx).is_pending());
        assert!(Pin::new(&mut old).poll_frame(cx).is_pending());
        let (mut new, rest) = ReplayBody::again(rest.unwrap(), false);
        assert_eq!(wakes.count(), 0, "the old one has what it waits for, until the new one is polled");
        assert_eq!(next_data(&mut new), "aa");
        assert_eq!(wakes.count(), 1, "it has nothing to wait for any more");
        (new, rest)
    };
    let (wakes, waker) = Wakes::new();
    assert!(Pin::new(&mut new).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    let error = next(&mut old).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a later attempt has taken over the body");
    gate.lock().unwrap().take().unwrap().wake();
    assert_eq!(wakes.count(), 1, "and not the old one, which was polled since");
    assert_eq!(next_data(&mut new), "bb");
    assert!(next(&mut new).is_none());
    drop((old, rest));
}

#[test]
fn an_attempt_that_is_stuck_keeps_nothing_alive() {
    for whole in [false, true] {
        let (step, frame_alive) = tracked(5);
        let steps = Steps::new([step, data("bb"), data("cc")]);
        let body_alive = steps.alive();
        let (mut stuck, rest) = kept(steps, 100);
        drop(next(&mut stuck));
        let (mut second, rest) = again(rest);
        drop(next(&mut second));
        let (mut last, none) = Replay::again(rest, true);
        assert!(none.is_none());
        drop(second);
        assert_eq!(frame_alive.load(SeqCst), 1);
        drop(next(&mut last));
        assert_eq!(frame_alive.load(SeqCst), 0, "nobody else sends it");
        if whole {
            assert_eq!(text(&read(last).unwrap().0), "bbcc");
        } else {
            assert_eq!(body_alive.load(SeqCst), 1);
            drop(last);
        }
        assert_eq!(body_alive.load(SeqCst), 0);
        assert!(is_taken_over(&mut stuck));
    }
    // The call was cancelled, in whatever order; or what was read to its end is not sent to its end.
    for (whole, kept_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let (step, frame_alive) = tracked(5);
        let steps = Steps::new([step, data("bb")]);
        let body_alive = steps.alive();
        let (mut stuck, rest) = kept(steps, 100);
        drop(next(&mut stuck));
        let (mut second, rest) = again(rest);
        drop(next(&mut second));
        if whole {
            while next(&mut second).is_some() {}
        }
        let (third, rest) = again(rest);
        if kept_first {
            drop(rest);
            drop(second);
            drop(third);
        } else {
            drop(third);
            drop(second);
            drop(rest);
        }
        assert_eq!((frame_alive.load(SeqCst), body_alive.load(SeqCst)), (0, 0));
        assert!(is_taken_over(&mut stuck));
    }
}

/// Does something to other attempts while it is polled, dropped or asked for its length.
struct Meddler {
    left: Vec<&'static str>,
    #[expect(clippy::type_complexity)]
    meddle: Rc<std::cell::RefCell<Option<Box<dyn FnOnce()>>>>,
}

impl Meddler {
    fn meddle(&self) {
        let meddle = self.meddle.borrow_mut().take();
        if let Some(meddle) = meddle {
            meddle();
        }
    }
}

impl Body for Meddler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.meddle();
        Poll::Ready(self.left.pop().map(|data| Ok(Frame::data(Bytes::from(data)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.meddle();
        SizeHint::new()
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.meddle();
    }
}

#[test]
fn a_body_that_meddles_with_its_attempts_locks_nobody_out() {
    type Cell<T> = Rc<std::cell::RefCell<T>>;
    type Attempts = Cell<(Vec<ReplayBody<Meddler>>, Option<KeptBody<Meddler>>)>;
    // Whatever it does, and to whom.
    type Meddling = fn(&Attempts);
    let meddlings: [(&str, Meddling); 6] = [
        ("drops all attempts", |attempts| drop(std::mem::take(&mut attempts.borrow_mut().0))),
        ("drops what is kept", |attempts| drop(attempts.borrow_mut().1.take())),
        ("drops it all", |attempts| drop(std::mem::take(&mut *attempts.borrow_mut()))),
        ("polls all attempts", |attempts| {
            for attempt in &mut attempts.borrow_mut().0 {
                let _ = attempt.size_hint();
                match poll(attempt) {
                    Poll::Pending => {}
                    Poll::Ready(frame) => assert!(frame.is_none_or(|frame| frame.is_err()), "somebody else reads"),
                }
            }
        }),
        ("makes attempts and polls them", |attempts| {
            let kept = attempts.borrow_mut().1.take();
            let Some(kept) = kept else { return };
            let _ = ReplayBody::check(&kept);
            let (mut new, kept) = ReplayBody::again(kept, false);
            let _ = poll(&mut new);
            let (new, inner) = new.keep();
            drop(inner);
            let mut attempts = attempts.borrow_mut();
            attempts.0.push(new);
            attempts.1 = kept;
        }),
        ("makes the last attempt", |attempts| {
            let kept = attempts.borrow_mut().1.take();
            if let Some(kept) = kept {
                let (new, _) = ReplayBody::again(kept, true);
                attempts.borrow_mut().0.push(new);
            }
        }),
    ];
    for (what, meddling) in meddlings {
        for reads in 0..4 {
            for older in 0..3 {
                let meddle = Cell::default();
                let body = Meddler { left: vec!["cc", "bb", "aa"], meddle: Rc::clone(&meddle) };
                let (mut body, mut rest) = ReplayBody::new(body, 100).keep();
                let attempts = Attempts::default();
                for _ in 0..older {
                    let _ = poll(&mut body);
                    let (new, kept) = ReplayBody::again(rest.take().unwrap(), false);
                    attempts.borrow_mut().0.push(std::mem::replace(&mut body, new));
                    rest = kept;
                }
                attempts.borrow_mut().1 = rest;
                for _ in 0..reads {
                    let _ = poll(&mut body);
                }
                let during = attempts.clone();
                *meddle.borrow_mut() = Some(Box::new(move || meddling(&during)));
                let mut seen = Vec::new();
                let error = loop {
                    match poll(&mut body) {
                        Poll::Pending => panic!("{what}: for whom does it wait?"),
                        Poll::Ready(None) => break None,
                        Poll::Ready(Some(Ok(frame))) => seen.push(frame.into_data().unwrap()),
                        Poll::Ready(Some(Err(error))) => break Some(error),
                    }
                };
                assert!(["aa", "bb", "cc"].concat().ends_with(&text(&seen)) || error.is_some(), "{what}: {seen:?}");
                meddle.borrow_mut().take();
                drop(body);
                // Whatever was made meanwhile sends it all, if it is the newest.
                let (mut others, kept) = std::mem::take(&mut *attempts.borrow_mut());
                if let Some(error) = error {
                    assert_eq!(error.to_string(), "a later attempt has taken over the body", "{what}");
                }
                if others.len() > older {
                    let newest = others.pop().unwrap();
                    drop(others);
                    assert_eq!(text(&read(newest).unwrap().0), "aabbcc", "{what}");
                }
                if let Some(kept) = kept {
                    assert_eq!(text(&read(ReplayBody::again(kept, true).0).unwrap().0), "aabbcc", "{what}");
                }
            }
        }
    }
    // Neither does one that meddles when it is asked for its length, or dropped.
    let meddle = Cell::default();
    let body = Meddler { left: vec!["aa"], meddle: Rc::clone(&meddle) };
    let (first, rest) = ReplayBody::new(body, 100).keep();
    let seen = Cell::default();
    let during = Rc::clone(&seen);
    *meddle.borrow_mut() = Some(Box::new(move || {
        let (mut second, _) = ReplayBody::again(rest.unwrap(), true);
        *during.borrow_mut() = Some((second.size_hint().exact(), poll(&mut second).is_ready()));
    }));
    assert_eq!(first.size_hint().exact(), None);
    assert_eq!(seen.take(), Some((None, false)), "the first one is busy with it");
    let meddle = Cell::default();
    let body = Meddler { left: vec!["aa"], meddle: Rc::clone(&meddle) };
    let (mut first, rest) = ReplayBody::new(body, 100).keep();
    next(&mut first);
    let seen = Cell::default();
    let during = Rc::clone(&seen);
    // Once it was read to its end it is dropped, and what was read of it is there for everyone.
    let dropped = move || {
        let (second, _) = ReplayBody::again(rest.unwrap(), true);
        *during.borrow_mut() = Some((second.size_hint().exact(), text(&read(second).unwrap().0)));
    };
    let later = Rc::clone(&meddle);
    *meddle.borrow_mut() = Some(Box::new(move || *later.borrow_mut() = Some(Box::new(dropped))));
    assert!(next(&mut first).is_none());
    assert_eq!(seen.take(), Some((Some(2), String::from("aa"))));
}

#[test]
fn a_body_that_panics_has_failed_for_every_attempt() {
    struct Panics(Steps);
    impl Body for Panics {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bodies::Given<Steps>> {
            assert!(self.0.polls().load(SeqCst) < 1, "this panic is part of the test");
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    for held in [false, true] {
        let steps = Steps::new([data("aa"), data("bb")]);
        let alive = steps.alive();
        let (mut body, rest) = ReplayBody::new(Panics(steps), 100).keep();
        let rest = rest.unwrap();
        assert_eq!(next_data(&mut body), "aa");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut body))).unwrap_err();
        if !held {
            drop(body);
            body = ReplayBody::new(Panics(Steps::new([])), 0);
        } else {
            assert_eq!((body.size_hint().lower(), body.is_end_stream()), (0, false));
            assert_eq!(reason(&next(&mut body).unwrap().unwrap_err()), Some(NotRepeatable::Failed));
            assert!(next(&mut body).is_none());
        }
        assert_eq!(ReplayBody::<Panics>::check(&rest), Err(NotRepeatable::Failed));
        let (again, rest) = ReplayBody::again(rest, false);
        let error = read(again).unwrap_err();
        assert_eq!(reason(&error), Some(NotRepeatable::Failed), "it may have lost a frame");
        assert_eq!(alive.load(SeqCst), 0);
        drop((body, rest));
    }
}

#[test]
fn whoever_comes_too_late_is_told_that_the_body_is_gone() {
    for (steps, expected) in [
        (vec![data("aa"), data("bb")], NotRepeatable::TooLong),
        (vec![data("aa"), Step::Fail("the client went away")], NotRepeatable::Failed),
    ] {
        // Both are read before the later attempt is made, by one who was not told that it was decided.
        let (mut old, rest) = kept(Steps::new(steps), 3);
        next(&mut old);
        assert_eq!(Replay::check(&rest), Ok(()));
        let _ = next(&mut old);
        assert_eq!(Replay::check(&rest), Err(expected));
        let (new, _) = again(rest);
        assert_eq!(reason(&read(new).unwrap_err()), Some(expected));
    }
}

// HTTP/1 sends no trailers with a body whose length is known.
#[test]
fn a_body_with_trailers_that_did_not_say_its_length_never_does() {
    for exact in [Some(4), None] {
        let steps = Steps::new([data("aa"), data("bb"), Step::Trailers(trailers())]);
        let steps = if exact.is_some() { steps.hint(Hint::Honest) } else { steps };
        let (first, rest) = kept(steps, 100);
        assert_eq!(first.size_hint().exact(), exact);
        read(first).unwrap();
        let (mut second, rest) = again(rest);
        assert_eq!((second.size_hint().lower(), second.size_hint().exact()), (4, exact));
        next(&mut second);
        assert_eq!(second.size_hint().exact(), exact.map(|_| 2));
        // A retry inside of it knows no more.
        let (inner, _) = second.keep();
        assert_eq!(inner.size_hint().exact(), exact.map(|_| 2));
        assert_eq!(read(again(rest).0).unwrap().1, Some(trailers()));
    }
    let (first, rest) = kept(Steps::new([data("aa"), data("bb")]), 100);
    read(first).unwrap();
    assert_eq!(again(rest).0.size_hint().exact(), Some(4), "there are none");
}

#[test]
fn from_when_a_later_attempt_is_decided_the_old_one_uses_up_nothing() {
    let (step, alive) = tracked(5);
    let (mut old, mut rest) = kept(Steps::new([step, Step::Pending, data("bb"), data("cc")]), 8);
    drop(next(&mut old));
    let (wakes, waker) = Wakes::new();
    assert!(Pin::new(&mut old).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    let by_the_body = wakes.count();
    assert_eq!(Replay::take_over(&mut rest), Ok(()));
    assert_eq!(wakes.count(), by_the_body + 1, "it has nothing to wait for any more");
    assert!(is_taken_over(&mut old));
    // Once more changes nothing, nor does it whether the old one is still there.
    assert_eq!(Replay::take_over(&mut rest), Ok(()));
    drop(old);
    let (mut new, mut rest) = again(rest);
    next(&mut new);
    assert_eq!(next_data(&mut new), "bb");
    drop(new);
    assert_eq!(Replay::take_over(&mut rest), Ok(()));
    let (new, mut rest) = again(rest);
    assert!(read(new).is_ok());
    // By now it was too much to keep.
    assert_eq!(Replay::take_over(&mut rest), Err(NotRepeatable::TooLong));
    drop(rest);
    assert_eq!(alive.load(SeqCst), 0);
}

#[test]
fn nothing_is_kept_for_an_attempt_that_was_decided_and_is_not_made() {
    let (step, alive) = tracked(5);
    let steps = Steps::new([step, data("bb")]);
    let body_alive = steps.alive();
    let (mut stuck, mut rest) = kept(steps, 100);
    drop(next(&mut stuck));
    assert_eq!(Replay::take_over(&mut rest), Ok(()));
    assert_eq!((alive.load(SeqCst), body_alive.load(SeqCst)), (1, 1));
    drop(rest);
    assert_eq!((alive.load(SeqCst), body_alive.load(SeqCst)), (0, 0));
    assert!(is_taken_over(&mut stuck));
}

#[test]
fn a_body_that_was_read_to_its_end_can_be_sent_again_while_the_old_attempt_holds_it() {
    let (mut old, mut rest) = kept(Steps::new([data("aa")]).ends(Ends::Honest), 100);
    next(&mut old);
    assert_eq!(Replay::take_over(&mut rest), Ok(()));
    assert!(old.is_end_stream());
    // All of them at once, in turns.
    let (mut second, rest) = again(rest);
    let (mut third, rest) = again(rest);
    assert_eq!(next_data(&mut third), "aa");
    assert_eq!(next_data(&mut second), "aa");
    assert!(next(&mut third).is_none() && next(&mut second).is_none() && next(&mut old).is_none());
    drop(rest);
}

#[test]
fn a_body_that_fails_is_not_sent_again() {
    let steps = Steps::new([data("aa"), Step::Fail("the client went away"), data("never")]);
    let alive = steps.alive();
    let (mut body, rest) = kept(steps, 100);
    next(&mut body);
    let error = next(&mut body).unwrap().unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().to_string(), "the client went away", "as it was");
    assert!(next(&mut body).is_none() && body.is_end_stream());
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::Failed));
    assert_eq!(alive.load(SeqCst), 0);
    drop(body);
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::Failed));
    assert_eq!(reason(&read(again(rest).0).unwrap_err()), Some(NotRepeatable::Failed));
}

#[test]
fn an_empty_body_costs_nothing_and_a_small_one_next_to_nothing() {
    let empty = || Steps::new([]).ends(Ends::Always);
    let bare = measure(|| drop(empty())).count_total;
    let measured = measure(|| {
        let (body, rest) = kept(empty(), 100);
        assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
        drop(body);
        let (mut body, rest) = again(rest);
        assert!(body.is_end_stream() && next(&mut body).is_none());
        assert_eq!(Replay::check(&rest), Ok(()));
    });
    assert_eq!(measured.count_total, bare);

    let body = Bytes::from_static(b"hello");
    let measured = measure(|| {
        let (mut first, rest) = ReplayBody::new(CollectedBody::from(body.clone()), 100).keep();
        assert_eq!(next_data(&mut first), "hello");
        let (mut second, rest) = ReplayBody::again(rest.unwrap(), false);
        assert_eq!(next_data(&mut second), "hello");
        let (mut third, rest) = ReplayBody::again(rest.unwrap(), true);
        assert_eq!(next_data(&mut third), "hello");
        assert!(rest.is_none() && third.is_end_stream());
    });
    assert_eq!(measured.count_total, 1, "what the attempts share");
}

#[test]
fn a_mebibyte_in_frames_of_16_kib_takes_two_allocations() {
    // Cut from a buffer, as hyper does it. (A `Bytes` made of a `Vec` allocates 24 bytes the first time it is shared.)
    let mut buffer = BytesMut::zeroed(1024 * 1024);
    let steps = (0..64).map(|_| Step::Data(buffer.split_to(16 * 1024).freeze()));
    let mut body = Some(Steps::new(steps.collect::<Vec<_>>()));
    let mut rest = None;
    let measured = measure(|| {
        let (mut first, kept) = kept(body.take().unwrap(), 1024 * 1024);
        while next(&mut first).is_some() {}
        rest = Some(kept);
    });
    println!("recording: {} allocations, {} bytes", measured.count_total, measured.bytes_total);
    assert!(measured.count_total <= 2, "{measured:?}");
    assert!(measured.bytes_total < 3 * 1024, "{measured:?}");
    let measured = measure(|| {
        let (body, _) = Replay::again(rest.take().unwrap(), true);
        let mut body = body;
        let mut length = 0;
        while let Some(frame) = next(&mut body) {
            length += frame.unwrap().data_ref().unwrap().len();
        }
        assert_eq!(length, 1024 * 1024);
    });
    assert_eq!(measured.count_total, 0);
}

/// A gibibyte, made while it is read.
struct Huge(u32);

impl Body for Huge {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 += 1;
        Poll::Ready((self.0 <= 16 * 1024).then(|| Ok(Frame::data(Bytes::from(vec![0; 64 * 1024])))))
    }
}

#[test]
fn a_gibibyte_goes_by_in_constant_memory() {
    let measured = measure(|| {
        let (mut body, rest) = ReplayBody::new(Huge(0), 256 * 1024).keep();
        let mut length = 0_u64;
        while let Some(frame) = next(&mut body) {
            length += frame.unwrap().data_ref().unwrap().len() as u64;
        }
        assert_eq!(length, 1 << 30);
        assert_eq!(ReplayBody::<Huge>::check(&rest.unwrap()), Err(NotRepeatable::TooLong));
    });
    println!("at most {} bytes at once", measured.bytes_max);
    assert!(measured.bytes_max < 400 * 1024, "{measured:?}");
}

#[test]
fn empty_frames_are_passed_on_and_not_kept() {
    let empty = || Step::Data(Bytes::new());
    let (body, rest) = kept(Steps::new([empty(), data("a"), empty(), empty(), data("b"), empty()]), 2);
    let (frames, _) = read(body).unwrap();
    assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), [0, 1, 0, 0, 1, 0]);
    let (body, _) = again(rest);
    assert_eq!(read(body).unwrap().0, ["a", "b"]);

    // However many there are.
    let mut body = Some(Steps::new((0..10_000).map(|_| empty())));
    let measured = measure(|| {
        let (mut body, rest) = kept(body.take().unwrap(), 0);
        while next(&mut body).is_some() {}
        assert_eq!(Replay::check(&rest), Ok(()));
        assert!(again(rest).0.is_end_stream());
    });
    assert_eq!(measured.count_total, 1);

    // The last frame is empty, and the body says that it was the last.
    let (body, rest) = kept(Steps::new([data("a"), empty()]).ends(Ends::Honest), 2);
    assert_eq!(read(body).unwrap().0.len(), 2);
    assert_eq!(read(again(rest).0).unwrap().0, ["a"]);
}

#[test]
fn a_body_of_crumbs_does_not_cost_many_times_its_length() {
    const LENGTH: usize = 256 * 1024;
    let mut body = Some(Steps::new((0..LENGTH).map(|n| Step::Data(Bytes::copy_from_slice(&[n as u8])))));
    let mut kept_body = None;
    let measured = measure(|| {
        let (mut first, rest) = kept(body.take().unwrap(), LENGTH);
        while next(&mut first).is_some() {}
        kept_body = Some(rest);
    });
    println!("{} bytes for {LENGTH} crumbs", measured.bytes_max);
    assert!(measured.bytes_max < 2 * LENGTH as u64 + 128 * 1024, "{measured:?}");
    let (frames, _) = read(again(kept_body.unwrap()).0).unwrap();
    assert_eq!(frames.concat(), (0..LENGTH).map(|n| n as u8).collect::<Vec<_>>());
}

#[test]
fn crumbs_are_handed_over_like_everything_else() {
    const LENGTH: usize = 5000;
    let content = (0..LENGTH).map(|n| n as u8).collect::<Vec<_>>();
    let crumbs = content.chunks(1).map(data).collect::<Vec<_>>();
    let (mut outer, mut outer_kept) = kept(Steps::new(crumbs), LENGTH);
    for reads in [0, 1500, 100, 3000] {
        let mut read = (0..reads).map(|_| next_data(&mut outer)).collect::<Vec<_>>();
        // A retry inside begins where this attempt is, though what it read last is not a frame of its own.
        let (first, inner) = outer.keep();
        drop(first);
        let (second, inner) = again(inner.unwrap());
        let (_, kept) = second.keep();
        let (mut third, _) = again(kept.unwrap());
        read.push(next_data(&mut third));
        assert!(content.starts_with(&read.concat()), "after {reads}");
        drop((third, inner));
        (outer, outer_kept) = again(outer_kept);
    }
    assert_eq!(read(outer).unwrap().0.concat(), content);
    assert_eq!(read(again(outer_kept).0).unwrap().0.concat(), content);
}

#[test]
fn crumbs_are_taken_over_from_an_attempt_that_is_still_there() {
    const LENGTH: usize = 5000;
    let content = (0..LENGTH).map(|n| n as u8).collect::<Vec<_>>();
    let crumbs = content.chunks(1).map(data).collect::<Vec<_>>();
    let (mut first, rest) = kept(Steps::new(crumbs), LENGTH);
    (0..1500).for_each(|_| drop(next(&mut first)));
    let (mut second, rest) = again(rest);
    let mut seen = Vec::new();
    while seen.len() < 2500 {
        seen.extend_from_slice(&next_data(&mut second));
    }
    // Retries inside of both: that of the first is too late, that of the second begins where the second is.
    let _ = first.size_hint();
    let (mut first, none) = first.keep();
    assert!(none.is_none());
    while seen.len() < 3000 {
        seen.extend_from_slice(&next_data(&mut second));
    }
    assert!(content.starts_with(&seen));
    assert!(is_taken_over(&mut first));
    let (second, inner) = second.keep();
    let (mut third, inner) = again(inner.unwrap());
    assert!(content[seen.len()..].starts_with(&next_data(&mut third)));
    assert_eq!(read(again(inner).0).unwrap().0.concat(), content[seen.len()..]);
    assert_eq!(read(again(rest).0).unwrap().0.concat(), content);
    drop(second);
}

#[test]
fn trailers_alone_are_a_body() {
    for ends in [Ends::Unknown, Ends::Honest] {
        let (mut body, rest) = kept(Steps::new([Step::Trailers(trailers())]).hint(Hint::Honest).ends(ends), 0);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), false));
        assert_eq!(next(&mut body).unwrap().unwrap().into_trailers().unwrap(), trailers());
        assert!(body.is_end_stream());
        let (body, rest) = again(rest);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), false));
        assert_eq!(read(body).unwrap(), (vec![], Some(trailers())));
        let (mut last, _) = Replay::again(rest, true);
        assert_eq!(next(&mut last).unwrap().unwrap().into_trailers().unwrap(), trailers());
        assert!(last.is_end_stream() && next(&mut last).is_none());
    }
}

#[test]
fn trailers_end_a_body() {
    let (body, rest) = kept(Steps::new([data("a"), Step::Trailers(trailers()), data("late")]), 10);
    assert_eq!(read(body).unwrap(), (vec![Bytes::from("a")], Some(trailers())));
    assert_eq!(read(again(rest).0).unwrap(), (vec![Bytes::from("a")], Some(trailers())));
}

#[test]
fn a_cap_of_zero_keeps_no_data() {
    let (body, rest) = kept(Steps::new([data("a")]), 0);
    read(body).unwrap();
    assert_eq!(Replay::check(&rest), Err(NotRepeatable::TooLong));
}

#[test]
fn the_greatest_cap_is_a_cap() {
    let (body, rest) = kept(Steps::new([data("a"), data("b")]), usize::MAX);
    read(body).unwrap();
    assert_eq!(text(&read(again(rest).0).unwrap().0), "ab");
}

#[test]
fn a_body_that_lies_about_its_length_is_sent_as_it_is() {
    // It claims less than it has: what it has counts.
    for hint in [Hint::Lie { lower: 0, upper: Some(0) }, Hint::Lie { lower: 1, upper: Some(2) }] {
        let steps = || Steps::new([data("1234"), data("5678")]).hint(hint);
        let (body, rest) = kept(steps(), 8);
        assert_eq!(text(&read(body).unwrap().0), "12345678");
        let (body, _) = again(rest);
        assert_eq!(body.size_hint().exact(), Some(8), "by now the truth is known");
        assert_eq!(text(&read(body).unwrap().0), "12345678");

        let (body, rest) = kept(steps(), 7);
        assert_eq!(text(&read(body).unwrap().0), "12345678");
        assert_eq!(Replay::check(&rest), Err(NotRepeatable::TooLong));
    }
    // It claims more than it has, but not too much.
    let (body, rest) = kept(Steps::new([data("12")]).hint(Hint::Lie { lower: 5, upper: Some(6) }), 6);
    read(body).unwrap();
    let (body, _) = again(rest);
    assert_eq!(body.size_hint().exact(), Some(2));
    assert_eq!(text(&read(body).unwrap().0), "12");
    // With a greatest length that overflows once something was read.
    for upper in [None, Some(u64::MAX)] {
        let (mut body, rest) = kept(Steps::new([data("12"), data("34")]).hint(Hint::Lie { lower: 0, upper }), 6);
        next(&mut body);
        drop(body);
        let (body, _) = again(rest);
        let hint = body.size_hint();
        assert_eq!((hint.lower(), hint.upper()), (2, None), "no length rather than a wrong one");
    }
}

/// Claims to have ever more left.
struct Boast(VecDeque<Bytes>, Cell<u64>);

impl Body for Boast {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        let claim = self.1.get();
        self.1.set(u64::MAX);
        SizeHint::with_exact(claim)
    }
}

#[test]
fn a_length_beyond_all_numbers_is_no_panic() {
    // Moderate while it is kept, then without measure.
    let (mut body, rest) = ReplayBody::new(Boast(VecDeque::from([Bytes::from("ab")]), Cell::new(0)), 10).keep();
    next(&mut body);
    drop(body);
    let (body, _) = ReplayBody::again(rest.unwrap(), false);
    assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (u64::MAX, None));
    assert_eq!(text(&read(body).unwrap().0), "ab");
}

#[test]
fn a_body_that_says_it_is_over_is_over_for_every_attempt() {
    let (mut body, rest) = kept(Steps::new([data("hidden")]).ends(Ends::Always), 100);
    assert!(body.is_end_stream() && next(&mut body).is_none());
    assert!(next(&mut again(rest).0).is_none());
}

#[test]
fn until_it_is_kept_it_only_passes_on() {
    let steps = Steps::new([data("aa"), Step::Pending, data("bb"), Step::Trailers(trailers())]).hint(Hint::Honest);
    let mut body = ReplayBody::new(steps, 0);
    let measured = measure(|| {
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
        assert_eq!(next_data(&mut body), "aa");
        assert!(poll(&mut body).is_pending());
        assert_eq!(next_data(&mut body), "bb");
        assert!(next(&mut body).unwrap().unwrap().is_trailers());
        assert!(next(&mut body).is_none() && body.is_end_stream());
    });
    assert_eq!(measured.count_total, 0);
    let mut failing = ReplayBody::new(Steps::new([Step::Fail("gone"), data("never")]), 0);
    assert_eq!(next(&mut failing).unwrap().unwrap_err().to_string(), "gone");
    assert!(next(&mut failing).is_none());
}

#[test]
fn the_last_attempt_keeps_nothing() {
    let (first, first_alive) = tracked(5);
    let (second, second_alive) = tracked(5);
    let (mut body, rest) = kept(Steps::new([first, second]), 100);
    drop(next(&mut body));
    drop(body);
    let (mut last, none) = Replay::again(rest, true);
    assert!(none.is_none());
    assert_eq!(first_alive.load(SeqCst), 1);
    drop(next(&mut last));
    assert_eq!(first_alive.load(SeqCst), 0, "sent from what was kept, and gone");
    drop(next(&mut last));
    assert_eq!(second_alive.load(SeqCst), 0, "streamed, and not kept");
}

#[test]
fn nothing_is_kept_for_a_call_that_is_over() {
    let (first, alive) = tracked(5);
    let steps = Steps::new([first, data("aa"), data("bb")]);
    let body_alive = steps.alive();
    let (mut body, rest) = kept(steps, 100);
    drop(next(&mut body));
    // The response came early, was good, and the upload goes on.
    drop(rest);
    assert_eq!(next_data(&mut body), "aa");
    assert_eq!(alive.load(SeqCst), 0);
    assert_eq!(next_data(&mut body), "bb");
    drop(body);
    assert_eq!(body_alive.load(SeqCst), 0);
}

#[test]
fn a_cancelled_call_leaves_nothing_behind() {
    for body_first in [true, false] {
        let (step, alive) = tracked(5);
        let steps = Steps::new([step, data("rest")]);
        let body_alive = steps.alive();
        let (mut body, rest) = kept(steps, 100);
        drop(next(&mut body));
        if body_first {
            drop(body);
            drop(rest);
        } else {
            drop(rest);
            drop(body);
        }
        assert_eq!((alive.load(SeqCst), body_alive.load(SeqCst)), (0, 0));
    }
}

#[test]
fn retries_around_retries_share_what_was_read() {
    let steps = Steps::new([data("aa"), data("bb"), data("cc")]);
    let polls = steps.polls();
    let (outer, outer_kept) = kept(steps, 100);
    // The inner retry keeps what it is given, and sends it three times.
    let (mut first, inner_kept) = outer.keep();
    next(&mut first);
    drop(first);
    let (mut second, inner_kept) = again(inner_kept.unwrap());
    assert_eq!(next_data(&mut second), "aa");
    assert_eq!(next_data(&mut second), "bb");
    drop(second);
    let (third, none) = Replay::again(inner_kept, true);
    assert!(none.is_none());
    assert_eq!(text(&read(third).unwrap().0), "aabbcc");
    // Then the outer one tries again, and its attempt is retried inside.
    assert_eq!(Replay::check(&outer_kept), Ok(()));
    let (outer, outer_kept) = again(outer_kept);
    let (first, inner_kept) = outer.keep();
    assert_eq!(text(&read(first).unwrap().0), "aabbcc");
    assert_eq!(text(&read(again(inner_kept.unwrap()).0).unwrap().0), "aabbcc");
    assert_eq!(text(&read(again(outer_kept).0).unwrap().0), "aabbcc");
    assert_eq!(polls.load(SeqCst), 4, "the body was read once");
}

#[test]
fn a_body_that_was_read_in_part_is_kept_from_there() {
    // By whoever was outside of the retry.
    let mut body = ReplayBody::new(Steps::new([data("peeked"), data("aa"), data("bb")]), 100);
    assert_eq!(next_data(&mut body), "peeked");
    let (first, rest) = body.keep();
    assert_eq!(text(&read(first).unwrap().0), "aabb");
    assert_eq!(text(&read(again(rest.unwrap()).0).unwrap().0), "aabb");

    // By whoever is between two retries: while it is recorded, while it is replayed, and when all of it is known.
    for known in [false, true] {
        for replayed in [false, true] {
            let (mut body, mut outer) = kept(Steps::new([data("peeked"), data("aa"), data("bb")]), 100);
            if known {
                while next(&mut body).is_some() {}
            } else if replayed {
                next(&mut body);
                next(&mut body);
            }
            if replayed || known {
                drop(body);
                (body, outer) = again(outer);
            }
            assert_eq!(next_data(&mut body), "peeked");
            let (first, inner) = body.keep();
            assert_eq!(text(&read(first).unwrap().0), "aabb");
            let (second, inner) = again(inner.unwrap());
            assert_eq!(second.size_hint().exact(), Some(4));
            assert_eq!(text(&read(second).unwrap().0), "aabb");
            assert_eq!(text(&read(Replay::again(inner, true).0).unwrap().0), "aabb");
            assert_eq!(text(&read(again(outer).0).unwrap().0), "peekedaabb", "the outer one begins at the beginning");
        }
    }
}

#[test]
fn one_replay_body_in_another_is_harmless() {
    let inner = ReplayBody::new(Steps::new([data("aa"), data("bb")]), 100);
    let (body, rest) = ReplayBody::new(inner, 3).keep();
    assert_eq!(text(&read(body).unwrap().0), "aabb");
    assert_eq!(ReplayBody::check(&rest.unwrap()), Err::<(), _>(NotRepeatable::TooLong));
}

/// Data that is not `Bytes`, borrowed, of a body that cannot leave its thread.
struct Borrowed<'a> {
    data: VecDeque<&'a [u8]>,
    _thread: Rc<()>,
}

impl<'a> Body for Borrowed<'a> {
    type Data = bytes::buf::Chain<&'a [u8], &'a [u8]>;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        Poll::Ready(self.data.pop_front().map(|data| Ok(Frame::data(data.chain(&b"!"[..])))))
    }
}

#[test]
fn neither_bytes_nor_threads_nor_static_data_are_asked_for() {
    let owned = String::from("hello");
    let body = Borrowed { data: VecDeque::from([owned.as_bytes(), b"you"]), _thread: Rc::new(()) };
    let (first, rest) = ReplayBody::new(body, 100).keep();
    let (sent, _) = read(first).unwrap();
    assert_eq!(text(&sent), "hello!you!");
    let (second, _) = ReplayBody::again(rest.unwrap(), true);
    let (repeated, _) = read(second).unwrap();
    assert_eq!(repeated, sent);
    assert_eq!(repeated[0].as_ptr(), sent[0].as_ptr(), "converted once");

    // A service that is none of these either, nor `Clone`, behind both layers.
    let seen = Rc::new(Cell::new(0));
    let mut service = ReplayBodyService::new(
        CollectBody::new(
            service_fn(|request: Request<ReplayBody<Borrowed<'_>>>| {
                let (frames, _) = read(request.into_body()).unwrap();
                seen.set(frames.len());
                let seen = seen.clone();
                async move { Ok::<_, Infallible>(Response::new(seen.get().to_string())) }
            }),
            10,
        ),
        10,
    );
    let body = Borrowed { data: VecDeque::from([owned.as_bytes()]), _thread: Rc::new(()) };
    let mut call = std::pin::pin!(service.call(Request::new(body)));
    let Poll::Ready(answer) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!("pending") };
    assert_eq!(answer.unwrap().body().bytes(), "1");
}

#[test]
fn what_can_be_sent_to_other_threads_can_be() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn unpin<T: Unpin>() {}
    send::<ReplayBody<AxumBody>>();
    send::<KeptBody<AxumBody>>();
    sync::<KeptBody<AxumBody>>();
    send::<ReplayBody<Steps>>();
    sync::<ReplayBody<Steps>>();
    unpin::<ReplayBody<AxumBody>>();
    send::<CollectedBody>();
    sync::<CollectedBody>();
    unpin::<CollectedBody>();
    send::<<CollectBody<Router> as Service<Request<AxumBody>>>::Future>();
    // Boxed, a body that is not `Unpin` is.
    fn boxed<B: Body<Error: Into<BoxError>>>(body: B) -> impl Body {
        ReplayBody::new(Box::pin(body), 10)
    }
    drop(boxed(AxumBody::empty()));
}

#[test]
fn whatever_is_clone_is_kept_as_a_clone() {
    #[derive(Debug, Default)]
    struct Counted(Rc<Cell<u32>>);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.set(self.0.get() + 1);
            Self(self.0.clone())
        }
    }
    let body = Counted::default();
    let clones = body.0.clone();
    let (_, kept) = body.keep();
    let kept = kept.unwrap();
    assert_eq!(Counted::check(&kept), Ok(()));
    let (_, kept) = Counted::again(kept, false);
    let (_, kept) = Counted::again(kept.unwrap(), true);
    assert!(kept.is_none());
    assert_eq!(clones.get(), 2, "three attempts, two clones");
}

#[test]
fn nothing_of_a_body_is_in_its_debug_output() {
    let (mut body, rest) = kept(Steps::new([data("secret"), data("secret")]), 100);
    next(&mut body);
    let shown = format!("{body:?} {rest:?}");
    assert_eq!(shown, "ReplayBody { state: \"recording\", .. } KeptBody { check: Ok(()), .. }");
    let mut collected = CollectedBody::from(Bytes::from("secret"));
    assert_eq!(format!("{collected:?}"), "CollectedBody { length: 6, trailers: 0 }");
    assert_eq!(collected.size_hint().exact(), Some(6));
    assert_eq!(next_data(&mut collected), "secret");
    assert!(collected.is_end_stream() && collected.bytes().is_empty());
}

#[test]
fn threads_take_the_body_over() {
    // Each attempt reads on a thread of its own, and goes on while later ones take over.
    const FRAMES: usize = 60;
    let sent = || (0..FRAMES).map(|n| vec![n as u8; 7]);
    let expected = sent().flatten().collect::<Vec<u8>>();
    for round in 0..150 {
        // Some of them with trailers, without a known end, or pending now and then.
        let steps = sent().enumerate().flat_map(|(n, frame)| {
            let pending = round % 3 == 0 && n % 4 == 1;
            pending.then_some(Step::Pending).into_iter().chain([data(frame)])
        });
        let steps = steps.chain((round % 2 == 0).then(|| Step::Trailers(trailers())));
        let steps = Steps::new(steps).ends(if round % 5 == 0 { Ends::Honest } else { Ends::Unknown });
        let (body_alive, polls) = (steps.alive(), steps.polls());
        let (first, rest) = kept(steps, FRAMES * 7);
        let newest = AtomicUsize::new(0);
        let attempt = |number: usize, mut body: Replay| {
            let (newest, expected) = (&newest, &expected);
            move || {
                let mut seen = Vec::new();
                loop {
                    let superseded = newest.load(SeqCst) > number;
                    match poll(&mut body) {
                        Poll::Pending => thread::yield_now(),
                        Poll::Ready(None) => break assert_eq!(seen, *expected, "cut short"),
                        Poll::Ready(Some(Ok(frame))) => {
                            // Whatever is known to have all of the body may end in its own time.
                            if let Ok(data) = frame.into_data() {
                                seen.extend_from_slice(&data);
                            }
                            assert!(expected.starts_with(&seen), "lost or sent twice");
                        }
                        Poll::Ready(Some(Err(error))) => {
                            assert_eq!(error.to_string(), "a later attempt has taken over the body");
                            assert!(superseded || newest.load(SeqCst) > number, "too soon");
                            break;
                        }
                    }
                }
                // It stays, as if it were stuck.
                body
            }
        };
        thread::scope(|scope| {
            let mut stuck = vec![scope.spawn(attempt(0, first))];
            let mut rest = rest;
            for number in 1..4 {
                while polls.load(SeqCst) < number * (round % 13) {
                    thread::yield_now();
                }
                let _ = Replay::check(&rest);
                newest.store(number, SeqCst);
                let (body, kept) = again(rest);
                rest = kept;
                stuck.push(scope.spawn(attempt(number, body)));
            }
            newest.store(4, SeqCst);
            let (last, _) = Replay::again(rest, true);
            let (frames, _) = {
                let mut last = last;
                let mut frames = Vec::new();
                loop {
                    match poll(&mut last) {
                        Poll::Pending => thread::yield_now(),
                        Poll::Ready(None) => break,
                        Poll::Ready(Some(frame)) => frames.extend(frame.unwrap().into_data()),
                    }
                }
                (frames, last)
            };
            assert_eq!(frames.concat(), expected);
            let stuck = stuck.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>();
            assert_eq!(body_alive.load(SeqCst), 0, "{stuck:?}");
        });
    }
}

#[test]
fn an_attempt_that_was_taken_over_never_gives_a_frame() {
    // However the threads interleave: once another attempt is made, the old one is polled in vain, whatever the new one does.
    for round in 0..300_usize {
        let (mut old, rest) = kept(Steps::new((0..40).map(|n| data(vec![n; 3]))), 1000);
        for _ in 0..round % 7 {
            next(&mut old);
        }
        let (mut new, rest) = again(rest);
        let barrier = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                let error = loop {
                    // Busy for a moment, at most.
                    if let Poll::Ready(frame) = poll(&mut old) {
                        break frame.unwrap().unwrap_err();
                    }
                };
                assert_eq!(error.to_string(), "a later attempt has taken over the body");
                assert!(next(&mut old).is_none());
            });
            barrier.wait();
            let mut seen = Vec::new();
            loop {
                match poll(&mut new) {
                    Poll::Pending => {}
                    Poll::Ready(None) => break,
                    Poll::Ready(Some(frame)) => seen.extend(frame.unwrap().into_data().unwrap()),
                }
            }
            assert_eq!(seen, (0..40).flat_map(|n| [n; 3]).collect::<Vec<_>>());
        });
        drop(rest);
    }
}

// A way of keeping whole requests, in the least that will do.

#[derive(Clone, Copy, Debug)]
struct Flat;

impl<B: RepeatBody> Keep<Request<B>> for Flat {
    type Kept = (Request<()>, B::Kept);

    fn first(&self, request: Request<B>) -> (Request<B>, Option<Self::Kept>) {
        let (head, body) = request.into_parts();
        let (body, kept) = body.keep();
        let copy = Request::from_parts(head.clone(), ());
        (Request::from_parts(head, body), kept.map(|kept| (copy, kept)))
    }

    fn again(&self, (head, kept): Self::Kept, last: bool) -> (Request<B>, Option<Self::Kept>) {
        let (body, kept) = B::again(kept, last);
        (head.clone().map(|()| body), kept.map(|kept| (head, kept)))
    }

    fn take_over(&self, (_, kept): &mut Self::Kept) -> bool {
        B::take_over(kept).is_ok()
    }
}

/// Five attempts as long as the server is at fault and the body is there.
#[derive(Clone, Copy, Debug)]
struct Five;

impl<B: RepeatBody, Res, E> Policy<Request<B>, Response<Res>, E> for Five {
    type Keep = Flat;

    fn keep(&self) -> Flat {
        Flat
    }

    fn may_retry(&self, number: u32) -> bool {
        number < 5
    }

    fn decide(
        &mut self,
        attempt: &Attempt,
        kept: Option<&mut (Request<()>, B::Kept)>,
        outcome: &mut Result<Response<Res>, E>,
    ) -> Decision {
        match (outcome, kept) {
            (Ok(response), _) if !response.status().is_server_error() => Decision::Return,
            (_, Some(_)) if attempt.number() < 5 => Decision::Retry { after: Duration::ZERO },
            _ => Decision::GiveUp(StopReason::Exhausted),
        }
    }
}

fn steps(chunks: &[&'static str]) -> AxumBody {
    AxumBody::new(Steps::new(chunks.iter().map(|chunk| data(*chunk))))
}

async fn answer(response: Response<AxumBody>) -> (StatusCode, String) {
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_axum_route_is_retried_with_its_streaming_body() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let echo = move |body: String| {
        let call = counted.fetch_add(1, SeqCst) + 1;
        async move { (if call < 3 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, body) }
    };
    let app: Router = Router::new()
        .route("/", post(echo))
        .layer(ServiceBuilder::new().layer(ReplayBodyLayer::new(64 * 1024)).layer(RetryLayer::new(Five)));
    let request = || Request::post("/").body(steps(&["hello", " ", "world"])).unwrap();
    assert_eq!(answer(app.clone().oneshot(request()).await.unwrap()).await, (StatusCode::OK, "hello world".into()));
    assert_eq!(calls.swap(0, SeqCst), 3);

    // One layer around the other, each on its own, is the same.
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let app: Router = Router::new()
        .fallback(move |_: axum::body::Bytes| {
            counted.fetch_add(1, SeqCst);
            async { StatusCode::BAD_GATEWAY }
        })
        .layer((ReplayBodyLayer::new(10), RetryLayer::new(Five)));
    assert_eq!(answer(app.clone().oneshot(request()).await.unwrap()).await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(calls.swap(0, SeqCst), 1, "eleven bytes were read");
    let empty = Request::get("/").body(AxumBody::empty()).unwrap();
    assert_eq!(answer(app.oneshot(empty).await.unwrap()).await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(calls.load(SeqCst), 5, "nothing to read");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_wants_axum_bodies_gets_them() {
    let calls = AtomicU32::new(0);
    let calls = &calls;
    let client = service_fn(|request: Request<AxumBody>| async move {
        let body = to_bytes(request.into_body(), 100).await?;
        let status = if calls.fetch_add(1, SeqCst) == 0 { 503 } else { 200 };
        Ok::<_, BoxError>(Response::builder().status(status).body(AxumBody::from(body))?)
    });
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(100))
        .layer(RetryLayer::new(Five))
        .map_request(|request: Request<ReplayBody<AxumBody>>| request.map(AxumBody::new))
        .service(client);
    let request = Request::post("/").body(steps(&["a", "b"])).unwrap();
    assert_eq!(answer(service.oneshot(request).await.unwrap()).await, (StatusCode::OK, "ab".into()));
    assert_eq!(calls.load(SeqCst), 2);
}

/// A server that reads so many frames before it answers; what it does not read is dropped, or held by its connection.
async fn serve(
    request: Request<ReplayBody<AxumBody>>,
    frames: usize,
    connection: Option<&Mutex<Vec<ReplayBody<AxumBody>>>>,
) -> Result<String, BoxError> {
    let mut body = request.into_body();
    let mut read = Vec::new();
    for _ in 0..frames {
        let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    if let Some(connection) = connection {
        connection.lock().unwrap().push(body);
    }
    Ok(String::from_utf8(read)?)
}

#[tokio::test(start_paused = true)]
async fn an_early_response_is_retried_whether_or_not_the_connection_let_go_of_the_body() {
    for holds in [false, true] {
        let held = Mutex::new(Vec::new());
        let (calls, held) = (&AtomicU32::new(0), &held);
        let service = ServiceBuilder::new().layer(ReplayBodyLayer::new(100)).layer(RetryLayer::new(Five)).service(
            service_fn(|request| async move {
                let call = calls.fetch_add(1, SeqCst) + 1;
                let read = serve(request, if call < 3 { call as usize } else { 100 }, holds.then_some(held)).await?;
                Ok::<_, BoxError>(Response::builder().status(if call < 3 { 503 } else { 200 }).body(read)?)
            }),
        );
        let request = Request::put("/").body(steps(&["a", "b", "c", "d"])).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), calls.load(SeqCst), response.body().as_str()), (200, 3, "abcd"));
        let mut held = held.lock().unwrap();
        assert_eq!(held.len(), if holds { 3 } else { 0 });
        held.iter_mut().take(2).for_each(|body| assert!(is_taken_over(body)));
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_error_the_next_attempt_takes_over_though_the_connection_holds_on() {
    let held = Mutex::new(Vec::new());
    let (calls, held) = (&AtomicU32::new(0), &held);
    let service = ServiceBuilder::new().layer(ReplayBodyLayer::new(100)).layer(RetryLayer::new(Five)).service(
        service_fn(|request| async move {
            if calls.fetch_add(1, SeqCst) < 2 {
                serve(request, 2, Some(held)).await?;
                return Err(BoxError::from("connection reset"));
            }
            Ok(Response::new(serve(request, 100, None).await?))
        }),
    );
    let request = Request::put("/").body(steps(&["a", "b", "c"])).unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().body(), "abc");
    assert_eq!((calls.load(SeqCst), held.lock().unwrap().len()), (3, 2));
    for mut body in held.lock().unwrap().drain(..) {
        let error = next(&mut body).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a later attempt has taken over the body");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_fails_the_call_once() {
    let calls = AtomicUsize::new(0);
    let calls = &calls;
    let service = ServiceBuilder::new().layer(ReplayBodyLayer::new(100)).layer(RetryLayer::new(Five)).service(
        service_fn(|request| async move {
            calls.fetch_add(1, SeqCst);
            Ok::<_, BoxError>(Response::new(serve(request, 100, None).await?))
        }),
    );
    let body = AxumBody::new(Steps::new([data("a"), Step::Fail("the client went away")]));
    let error = service.oneshot(Request::put("/").body(body).unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "the client went away");
    assert_eq!(calls.load(SeqCst), 1);
}

// Responses that are read inside the attempt.

#[tokio::test]
async fn a_collected_body_says_its_length_unless_there_are_trailers() {
    let with = collect(Steps::new([data("aa"), Step::Trailers(trailers())]), 100).await.unwrap();
    assert_eq!((with.size_hint().lower(), with.size_hint().exact()), (2, None));
    let without = collect(Steps::new([data("aa")]), 100).await.unwrap();
    assert_eq!(without.size_hint().exact(), Some(2));
}

async fn collect<B>(body: B, cap: usize) -> Result<CollectedBody, BoxError>
where
    B: Body<Error: Into<BoxError>>,
{
    let mut body = Some(body);
    let service = service_fn(move |()| std::future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap()))));
    Ok(CollectBody::new(service, cap).oneshot(()).await?.into_body())
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_is_a_failed_attempt() {
    let calls = AtomicU32::new(0);
    let calls = &calls;
    let retried = classify::retry_if(|outcome: &Result<Response<CollectedBody>, BoxError>| match outcome {
        Ok(response) => response.body().bytes().starts_with(b"busy"),
        Err(error) => error.downcast_ref::<io::Error>().is_some(),
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().wait(wait::none()).classify(retried)))
        .layer(CollectBodyLayer::new(100))
        .service(service_fn(|()| async move {
            let body = match calls.fetch_add(1, SeqCst) {
                0 => Steps::new([data("4"), Step::Pending, Step::Fail("reset")]),
                1 => Steps::new([data("bu"), data("sy, really")]),
                _ => Steps::new([data("4"), Step::Pending, data("2"), Step::Trailers(trailers())]),
            };
            Ok::<_, Infallible>(Response::builder().status(206).body(body).unwrap())
        }));
    let response = service.oneshot(()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().bytes().as_ref()), (206, &b"42"[..]));
    assert_eq!(response.body().trailers(), Some(&trailers()));
    assert_eq!(calls.load(SeqCst), 3);
    assert_eq!(read(response.into_body()).unwrap(), (vec![Bytes::from("42")], Some(trailers())));
}

#[tokio::test(start_paused = true)]
async fn a_response_longer_than_the_cap_fails() {
    let limit = |result: Result<CollectedBody, BoxError>| {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "the body of the response is longer than 4 bytes");
        error.downcast_ref::<BodyTooLarge>().unwrap().limit()
    };
    assert_eq!(collect(Steps::new([data("12"), data("34")]), 4).await.unwrap().into_bytes(), "1234");
    assert_eq!(limit(collect(Steps::new([data("12"), data("34"), data("5")]), 4).await), 4);
    assert_eq!(limit(collect(Steps::new([data("12345")]), 4).await), 4);
    // Known beforehand, it is not read at all.
    let long = Steps::new([data("12345")]).hint(Hint::Honest);
    let polls = long.polls();
    assert_eq!(limit(collect(long, 4).await), 4);
    assert_eq!(polls.load(SeqCst), 0);
    // A length that is a lie makes no room for itself.
    let mut lie = Some(Steps::new([data("1"), data("2")]).hint(Hint::Lie { lower: 4, upper: None }));
    assert_eq!(collect(lie.take().unwrap(), 4).await.unwrap().bytes(), "12");
    let boast = Boast(VecDeque::from([Bytes::from("1"), Bytes::from("2")]), Cell::new(0));
    assert_eq!(collect(boast, 4).await.unwrap().bytes(), "12");
}

#[tokio::test(start_paused = true)]
async fn a_response_of_one_frame_is_not_copied() {
    let frame = Bytes::from(vec![1; 100]);
    let body =
        collect(Steps::new([Step::Data(Bytes::new()), Step::Data(frame.clone()), Step::Data(Bytes::new())]), 100);
    let body = body.await.unwrap();
    assert_eq!(body.bytes().as_ptr(), frame.as_ptr());
    assert_eq!(body.clone().into_bytes().as_ptr(), frame.as_ptr());
    assert!(collect(Steps::new([]), 0).await.unwrap().is_end_stream());
    let only = collect(Steps::new([Step::Trailers(trailers())]), 0).await.unwrap();
    assert_eq!((only.is_end_stream(), only.trailers()), (false, Some(&trailers())));
}

#[tokio::test(start_paused = true)]
async fn many_frames_of_a_known_length_are_put_together_in_one_place() {
    let steps = Steps::new((0..64).map(|n| data(vec![n; 1024]))).hint(Hint::Honest);
    let mut service = CollectBody::new(
        service_fn({
            let mut body = Some(steps);
            move |()| std::future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
        }),
        1 << 20,
    );
    let mut call = std::pin::pin!(service.call(()));
    let mut done = None;
    let mut cx = Context::from_waker(Waker::noop());
    let measured = measure(|| {
        while done.is_none() {
            if let Poll::Ready(answer) = call.as_mut().poll(&mut cx) {
                done = Some(answer);
            }
        }
    });
    let bytes = done.unwrap().unwrap().into_body().into_bytes();
    assert_eq!(bytes, (0..64).flat_map(|n| vec![n; 1024]).collect::<Vec<u8>>());
    assert!(measured.count_total <= 3, "{measured:?}");
    assert!(measured.bytes_total < 66 * 1024, "{measured:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_of_nothing_but_empty_frames_starves_nobody() {
    struct Endless;
    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
        }
    }
    let service = service_fn(|()| async { Ok::<_, Infallible>(Response::new(Endless)) });
    let mut service = CollectBody::new(service, 10);
    let mut call = std::pin::pin!(service.call(()));
    let (wakes, waker) = Wakes::new();
    assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(wakes.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_comes_out_as_it_is() {
    let service = service_fn(|()| async { Err::<Response<AxumBody>, _>(io::Error::other("refused")) });
    let error = CollectBody::new(service, 10).oneshot(()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().to_string(), "refused");
}

/// Stands still in the middle of a poll until it may go on, and then gives more than may be kept.
struct Standing {
    entered: mpsc::Sender<()>,
    go: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Body for Standing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 100])))))
    }
}

#[tokio::test]
async fn a_body_that_is_used_up_just_as_a_retry_is_decided_ends_its_call_once() {
    let (entered, has_entered) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (over, is_over) = mpsc::channel();
    let (has_entered, is_over) = (Mutex::new(has_entered), Mutex::new(is_over));
    let service = service_fn(|request: Request<ReplayBody<Standing>>| {
        // As a connection in another thread does.
        let (mut body, over) = (request.into_body(), over.clone());
        thread::spawn(move || {
            let _ = poll(&mut body);
            over.send(()).unwrap();
        });
        has_entered.lock().unwrap().recv().unwrap();
        async { Err::<(), _>(io::Error::other("reset")) }
    });
    let ends = Arc::new(Mutex::new(Vec::new()));
    let (slept, gave_up) = (ends.clone(), ends.clone());
    let policy = RetryPolicy::new()
        .keep(FlatCopy)
        .wait(wait::none())
        .before_sleep(|_: &Attempt, _: &io::Result<()>, _: &Delay| {
            slept.lock().unwrap().push("slept");
            go.send(()).unwrap();
            is_over.lock().unwrap().recv().unwrap();
        })
        .on_give_up(|_: &Attempt, _: &io::Result<()>, reason: StopReason| gave_up.lock().unwrap().push(reason.name()));
    let body = ReplayBody::new(Standing { entered, go: Arc::new(Mutex::new(may_go)) }, 10);
    let error = Retry::new(policy, service).detailed().oneshot(Request::new(body)).await.unwrap_err();
    assert_eq!(error.reason(), StopReason::NotReplayable);
    assert_eq!(*ends.lock().unwrap(), ["slept", "not_replayable"]);
}
