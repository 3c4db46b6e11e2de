//! All interleavings of a few steps: `RUSTFLAGS="--cfg interleavings" cargo test --lib --release --no-default-features interleavings`.
//!
//! (Not `--cfg loom`, by which tokio would leave out what other crates need of it.)
//!
//! Each model runs twice, once with all that the memory model lets a load see, once with all orders of the steps. Windows are short and batches of two here.

use std::sync::Arc;

use loom::{model::Builder, thread};

use super::{
    atomic::ALL_ORDERS,
    lane::{BATCH, Lane},
    settings::Settings,
    window::{Stamped, Window},
};

const FIRST: u64 = Stamped::BIRTH;

fn check(preemptions: usize, model: impl Fn() + Send + Sync + Copy + 'static) {
    for all_orders in [false, true] {
        ALL_ORDERS.set(all_orders);
        let mut builder = Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }
}

fn window(ratio: f64, reserve: u32) -> Arc<Window> {
    Arc::new(Window::new(Settings::new(0, reserve).with_ratio(ratio).unwrap(), 1, 0))
}

#[test]
fn two_want_the_last_one() {
    check(5, || {
        let window = window(0.0, 1);
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || other.withdraw(FIRST).is_some());
        let mine = window.withdraw(FIRST).is_some();
        assert!(mine ^ thread.join().unwrap());
    });
}

#[test]
fn two_want_the_last_one_while_the_window_moves() {
    check(5, || {
        let window = window(0.0, 1);
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || other.withdraw(FIRST + 1));
        let mine = window.withdraw(FIRST);
        let [slot] = mine.into_iter().chain(thread.join().unwrap()).collect::<Vec<_>>()[..] else {
            panic!("one of them gets it");
        };
        // Two slots later it is there again, and not before.
        assert_eq!(window.withdraw(slot + 1), None);
        assert_eq!(window.withdraw(slot + 2), Some(slot + 2));
    });
}

#[test]
fn the_reserve_is_back_for_one_of_two() {
    check(4, || {
        let window = window(0.0, 2);
        assert_eq!(window.withdraw(FIRST), Some(FIRST));
        assert_eq!(window.withdraw(FIRST + 1), Some(FIRST + 1));
        let other = Arc::clone(&window);
        // The withdrawal of the first slot leaves the window, that of the second does not.
        let thread = thread::spawn(move || other.withdraw(FIRST + 2).is_some());
        let mine = window.withdraw(FIRST + 2).is_some();
        assert!(mine ^ thread.join().unwrap());
    });
}

#[test]
fn two_want_more_than_half() {
    check(3, || {
        let settings = Settings::new(0, 0).with_ratio(1.0).unwrap();
        let window = Arc::new(Window::new(settings, 3, 1));
        window.earn(FIRST, 4);
        assert_eq!(window.withdraw(FIRST), Some(FIRST));
        let other = Arc::clone(&window);
        // Within two slots there may be two, wherever this one lies.
        let thread = thread::spawn(move || other.withdraw(FIRST + 1));
        let mine = [window.withdraw(FIRST + 1), window.withdraw(FIRST + 2)];
        let all = [Some(FIRST), thread.join().unwrap(), mine[0], mine[1]];
        let in_slots = |slots: [u64; 2]| all.iter().flatten().filter(|slot| slots.contains(slot)).count();
        assert!(in_slots([FIRST, FIRST + 1]) <= 2 && in_slots([FIRST + 1, FIRST + 2]) <= 2, "{all:?}");
        assert!(in_slots([FIRST + 1, FIRST + 2]) > 0, "{all:?}");
    });
}

#[test]
fn a_refund_is_worth_one() {
    check(4, || {
        let window = window(0.0, 1);
        let slot = window.withdraw(FIRST).unwrap();
        let [first, second] = [Arc::clone(&window), Arc::clone(&window)];
        let refund = thread::spawn(move || first.refund(slot));
        let thread = thread::spawn(move || second.withdraw(FIRST).is_some());
        let mine = window.withdraw(FIRST + 1).is_some();
        refund.join().unwrap();
        let allowed = u8::from(mine) + u8::from(thread.join().unwrap());
        assert!(allowed <= 1);
        assert_eq!(window.withdraw(FIRST + 1).is_some(), allowed == 0);
    });
}

#[test]
fn successes_are_worth_what_they_are_while_they_are_withdrawn() {
    check(4, || {
        let window = window(0.5, 0);
        let other = Arc::clone(&window);
        window.earn(FIRST, 1);
        let deposit = thread::spawn(move || other.earn(FIRST, 2));
        let early = window.withdraw(FIRST).is_some();
        deposit.join().unwrap();
        let later = u8::from(window.withdraw(FIRST).is_some()) + u8::from(window.withdraw(FIRST).is_some());
        assert_eq!(u8::from(early) + later, 1);
    });
}

#[test]
fn no_success_is_lost_or_counted_twice_on_its_way() {
    for own in [true, false] {
        check(4, move || {
            let window = window(1.0, 0);
            let lane = Arc::new(Lane::new());
            // Dense from here on.
            (0..BATCH).for_each(|_| lane.deposit(&window, || FIRST));
            let deposit = |own: bool, times: u8| {
                let (window, lane) = (Arc::clone(&window), Arc::clone(&lane));
                move || {
                    (0..times).for_each(|_| match own {
                        true => lane.deposit(&window, || FIRST),
                        false => lane.deposit_among_others(&window, || FIRST),
                    });
                }
            };
            // A thread of its own and one that looks into its lane, or two that share the lane and one that looks.
            let two = thread::spawn(deposit(own, 2));
            let one = (!own).then(|| thread::spawn(deposit(false, 1)));
            lane.collect(&window);
            two.join().unwrap();
            let all = BATCH + 2 + u64::from(!own);
            if let Some(one) = one {
                one.join().unwrap();
            }
            // Half of them, rounded up, and half of one more: that makes all of them, and one.
            let earned = |waiting| window.available(FIRST, waiting) + window.available(FIRST, waiting + 1) - 1;
            assert_eq!(earned(lane.waiting().count), all);
            lane.collect(&window);
            assert_eq!(earned(0), all);
        });
    }
}

#[test]
fn what_comes_alone_counts_for_when_it_came() {
    check(4, || {
        let window = window(1.0, 0);
        let lane = Arc::new(Lane::new());
        lane.deposit_among_others(&window, || FIRST);
        let (other_window, other_lane) = (Arc::clone(&window), Arc::clone(&lane));
        // One of two that share the lane comes much later, and whatever the order, no more than that one counts for later.
        let early = thread::spawn(move || other_lane.deposit_among_others(&other_window, || FIRST));
        lane.deposit_among_others(&window, || FIRST + 9);
        early.join().unwrap();
        lane.collect(&window);
        assert!(window.available(FIRST + 9, 0) <= 1);
    });
}
