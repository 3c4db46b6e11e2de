mod threads;

use std::cell::Cell;

use proptest::prelude::*;

use super::{
    lane::BATCH,
    window::{Stamped, Window},
    *,
};

const STEP: Duration = Duration::from_millis(1200);
const WINDOW: Duration = Duration::from_secs(60);
const TENTH: Duration = Duration::from_secs(6);

// One lane, which every thread of the test uses.
fn budget(ratio: f64, reserve: u32, birth: Instant) -> Budget {
    let settings = Settings::new(0, reserve).with_ratio(ratio).unwrap();
    Budget::born(settings, birth, 1)
}

fn spend(budget: &Budget, now: Instant) -> bool {
    budget.withdraw(now).map(Withdrawal::spend).is_some()
}

// How many withdrawals a budget allows now. They are given back.
fn allowed(budget: &Budget, now: Instant) -> u64 {
    let held: Vec<_> = std::iter::from_fn(|| budget.withdraw(now)).collect();
    held.len() as u64
}

#[test]
fn a_fresh_budget_has_its_reserve_which_comes_back_after_the_window() {
    let birth = Instant::now();
    for (budget, reserve) in [(Budget::standard(), 2), (Budget::fleet(), 1), (Budget::standard().reserve(0), 0)] {
        assert_eq!(budget.available(birth), reserve);
        for _ in 0..reserve {
            assert!(spend(&budget, birth));
        }
        assert!(!spend(&budget, birth));
        assert!(!spend(&budget, birth + WINDOW - STEP));
        // One step more than the window at most, and the budget was born a little after `birth`.
        assert_eq!(allowed(&budget, birth + WINDOW + 2 * STEP), reserve);
    }
}

#[test]
fn successes_count_for_a_window() {
    let birth = Instant::now();
    let budget = budget(0.5, 0, birth);
    (0..10).for_each(|_| budget.deposit(|| birth));
    assert_eq!(allowed(&budget, birth), 3);
    assert_eq!(allowed(&budget, birth + WINDOW - STEP), 3);
    assert_eq!(allowed(&budget, birth + WINDOW), 0);
}

#[test]
fn seven_tenths_are_seven_hundred_in_a_thousand() {
    let birth = Instant::now();
    for (ratio, retries) in [(0.0, 0), (0.1, 100), (0.3, 300), (0.7, 700), (1.0, 1000)] {
        let budget = budget(ratio, 0, birth);
        (0..1000).for_each(|_| budget.deposit(|| birth));
        assert_eq!(allowed(&budget, birth), retries / 2);
        (0..retries / 2).for_each(|_| assert!(spend(&budget, birth)));
        assert_eq!(allowed(&budget, birth + TENTH + STEP), retries / 2);
        (0..retries / 2).for_each(|_| assert!(spend(&budget, birth + TENTH + STEP)));
        assert_eq!(allowed(&budget, birth + 2 * (TENTH + STEP)), 0);
    }
}

#[test]
fn half_of_what_was_earned_may_be_spent_at_once_and_all_of_the_reserve() {
    let birth = Instant::now();
    let budget = budget(0.1, 2, birth);
    (0..50).for_each(|_| budget.deposit(|| birth));
    // Rounded up, so that who earned one retry may have it.
    assert_eq!((budget.available(birth), allowed(&budget, birth)), (5, 5));
    for _ in 0..5 {
        assert!(spend(&budget, birth));
    }
    let tenth = birth + TENTH;
    assert_eq!((budget.available(tenth), allowed(&budget, tenth)), (0, 0));
    // Given back, it is there again, as far as the window allows.
    let later = tenth + STEP;
    let held = budget.withdraw(later).unwrap();
    assert_eq!(budget.available(later), 1);
    drop(held);
    assert_eq!((budget.available(later), allowed(&budget, later)), (2, 2));
}

#[test]
fn what_is_dropped_is_given_back_and_what_is_spent_is_not() {
    let birth = Instant::now();
    let budget = budget(0.1, 2, birth);
    let (first, second) = (budget.withdraw(birth).unwrap(), budget.withdraw(birth).unwrap());
    assert_eq!(budget.available(birth), 0);
    drop(first);
    assert_eq!(budget.available(birth), 1);
    second.spend();
    assert_eq!(allowed(&budget, birth), 1);
}

#[test]
fn giving_back_after_the_window_is_no_gift() {
    let birth = Instant::now();
    let budget = budget(0.1, 2, birth);
    let late = budget.withdraw(birth).unwrap();
    let later = birth + 2 * WINDOW;
    assert_eq!(allowed(&budget, later), 2);
    drop(late);
    assert_eq!(allowed(&budget, later), 2);
    let month = birth + Duration::from_secs(30 * 86_400);
    drop(budget.withdraw(later).unwrap());
    assert_eq!(allowed(&budget, month), 2);
}

#[test]
fn handles_of_a_budget_share_it_and_settings_make_a_new_one() {
    let now = Instant::now();
    let budget = Budget::standard();
    let (other, local) = (budget.clone(), budget.local());
    assert!(spend(&other, now));
    Taken::of(&local, now).unwrap().spend();
    assert_eq!(budget.available(now), 0);
    assert_eq!(budget.clone().reserve(3).available(now), 3);
    assert_eq!(budget.available(now), 0);
}

#[test]
fn a_withdrawal_outlives_its_budget() {
    let now = Instant::now();
    let withdrawal = Budget::standard().withdraw(now).unwrap();
    drop(withdrawal);
}

#[test]
fn dense_successes_ask_for_the_time_once_in_sixteen() {
    let birth = Instant::now();
    let budget = budget(1.0, 0, birth);
    let (asked, clock) = (Cell::new(0), Cell::new(birth));
    let deposit = |times: u64| {
        (0..times).for_each(|_| {
            budget.deposit(|| {
                asked.set(asked.get() + 1);
                clock.get()
            });
        });
    };
    // Until it is known that they are dense, each asks.
    deposit(BATCH);
    assert_eq!(asked.replace(0), BATCH);
    deposit(100 * BATCH + 5);
    assert_eq!(asked.replace(0), 100);
    // Whatever waits is there when it is needed.
    let half = (101 * BATCH + 5).div_ceil(2);
    assert_eq!(budget.available(birth), half);
    assert_eq!(allowed(&budget, birth), half);
    // That refusal looked into the lane; the lane is as dense as before.
    deposit(1 + 10 * BATCH);
    assert_eq!(asked.replace(0), 11);
    // Across the border of a step as well.
    clock.set(birth + STEP);
    deposit(10 * BATCH);
    assert_eq!(asked.replace(0), 10);
}

#[test]
fn sparse_successes_are_never_credited_to_an_earlier_step() {
    let birth = Instant::now();
    let budget = budget(1.0, 0, birth);
    let each = STEP / 2;
    for n in 0..1000 {
        budget.deposit(|| birth + n * each);
    }
    // Two in each of the 50 steps, of which half may be spent at once.
    assert_eq!(budget.available(birth + 999 * each), 50);
    assert_eq!(allowed(&budget, birth + 999 * each), 50);
}

#[test]
fn what_was_gathered_in_a_dense_time_does_not_count_as_fresh_later() {
    let birth = Instant::now();
    let budget = budget(1.0, 0, birth);
    (0..BATCH + 7).for_each(|_| budget.deposit(|| birth));
    let later = birth + 2 * WINDOW;
    assert_eq!((budget.available(later), allowed(&budget, later)), (0, 0));

    (0..2 * BATCH + 7).for_each(|_| budget.deposit(|| later));
    let much_later = later + 2 * WINDOW;
    // The rest of the sixteen is lost but for the last, which looks at the clock, and nothing after them.
    (0..BATCH - 7 - 1).for_each(|_| budget.deposit(|| much_later));
    assert_eq!(budget.available(much_later), 0);
    (0..5).for_each(|_| budget.deposit(|| much_later));
    assert_eq!(allowed(&budget, much_later), 3);
}

// What `now` does here stands for what other threads do while this one is held up between its count and its look at the clock.
#[test]
fn who_is_held_up_makes_the_successes_of_others_no_younger() {
    let birth = Instant::now();
    let late = birth + WINDOW - 5 * STEP;
    let budget = budget(1.0, 0, birth);
    (0..BATCH).for_each(|_| budget.deposit(|| birth));
    let mut held_up = false;
    while !held_up {
        budget.deposit(|| {
            held_up = true;
            (0..12).for_each(|_| budget.deposit(|| birth));
            late
        });
    }
    // Of all those only one can have come late.
    let after = birth + WINDOW + STEP;
    assert!(budget.available(after) <= 1);
    assert!(allowed(&budget, after) <= 1);
}

#[test]
fn a_month_of_sleep_costs_nothing_and_changes_nothing() {
    let birth = Instant::now();
    let budget = budget(0.1, 2, birth);
    for month in 0..1000 {
        let now = birth + month * Duration::from_secs(30 * 86_400);
        (0..40).for_each(|_| budget.deposit(|| now));
        assert_eq!(allowed(&budget, now), 2 + 2);
        (0..4).for_each(|_| assert!(spend(&budget, now)));
        assert!(!spend(&budget, now));
    }
}

#[test]
fn beyond_counting_nothing_is_allowed() {
    let birth = Instant::now();
    let budget = budget(1.0, 100, birth);
    let end = birth + Duration::from_secs(600 * 365 * 86_400);
    (0..100).for_each(|_| budget.deposit(|| end));
    assert!(!spend(&budget, end));
    // The budget itself was not carried there.
    assert!(spend(&budget, birth));
}

#[test]
fn moments_before_its_birth_are_moments_like_others() {
    let birth = Instant::now() + 2 * WINDOW;
    let budget = budget(1.0, 1, birth);
    (0..3).for_each(|_| budget.deposit(|| birth - 2 * WINDOW));
    (0..5).for_each(|_| budget.deposit(|| birth - WINDOW / 2));
    assert_eq!(allowed(&budget, birth - WINDOW / 2), 4);
    assert_eq!(allowed(&budget, birth), 4);
    assert_eq!(allowed(&budget, birth + WINDOW / 2), 1);
}

#[test]
fn its_debug_says_what_it_allows() {
    let text = format!("{:?}", Budget::new(0.7).unwrap().window(Duration::from_secs(30)).unwrap());
    assert_eq!(text, "Budget { ratio: 0.7, window: 30s, reserve: 2, .. }");
}

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<Budget>();
    anywhere::<LocalBudget>();
    anywhere::<Withdrawal>();
}

#[derive(Clone, Debug)]
enum Event {
    Pass(Duration),
    Succeed(u64),
    // So many tries to retry; of those allowed, every n-th is given back at once or later.
    Retry { tries: u64, give_back: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let pass = prop_oneof![
        8 => (0..2 * STEP.as_nanos() as u64).prop_map(Duration::from_nanos),
        4 => (0..2 * WINDOW.as_nanos() as u64).prop_map(Duration::from_nanos),
        // To the border of a step, and all around it.
        4 => (0_u32..60, 0_u64..3).prop_map(|(steps, nanos)| steps * STEP + Duration::from_nanos(nanos)),
        1 => (0_u64..1 << 32).prop_map(Duration::from_secs),
    ];
    prop_oneof![
        3 => pass.prop_map(Event::Pass),
        3 => prop_oneof![0_u64..20, 0_u64..300].prop_map(Event::Succeed),
        3 => (0_u64..12, 0_usize..4).prop_map(|(tries, give_back)| Event::Retry { tries, give_back }),
    ]
}

// What happened, in nanoseconds since the birth, and what is to be made of it.
struct Exact {
    billionths: u128,
    reserve: u128,
    successes: Vec<u128>,
    retries: Vec<u128>,
}

impl Exact {
    // Whether a retry at `now` is allowed by the rule, with retries counting for longer, and successes for less long and fewer, than it says.
    fn allows(&self, now: u128, slack: u128, fewer: u128) -> bool {
        let (window, tenth) = (WINDOW.as_nanos(), TENTH.as_nanos());
        let within = |times: &[u128], length: u128| times.iter().filter(|time| *time + length > now).count() as u128;
        let successes = within(&self.successes, window - slack).saturating_sub(fewer);
        let earned = successes * self.billionths / 1_000_000_000;
        within(&self.retries, window + slack) < earned + self.reserve
            && within(&self.retries, tenth + slack) < earned.div_ceil(2) + self.reserve
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    // The law: never above the rule by exact times, never further below it than is documented.
    #[test]
    fn any_history_keeps_the_rule(
        events in prop::collection::vec(event(), 1..80),
        thousandths in prop_oneof![0_u32..=1000, Just(100)],
        reserve in 0_u32..4,
    ) {
        let birth = Instant::now();
        let budget = budget(f64::from(thousandths) / 1000.0, reserve, birth);
        let mut exact = Exact {
            billionths: u128::from(thousandths) * 1_000_000,
            reserve: reserve.into(),
            successes: Vec::new(),
            retries: Vec::new(),
        };
        let mut held = Vec::new();
        let mut age = Duration::ZERO;
        for event in events {
            let now = birth + age;
            let nanos = age.as_nanos();
            match event {
                Event::Pass(time) => age += time,
                Event::Succeed(times) => for _ in 0..times {
                    budget.deposit(|| now);
                    exact.successes.push(nanos);
                },
                Event::Retry { tries, give_back } => for _ in 0..tries {
                    let gauge = budget.available(now);
                    match budget.withdraw(now) {
                        Some(withdrawal) => {
                            prop_assert!(gauge > 0);
                            prop_assert!(exact.allows(nanos, 0, 0), "above the rule");
                            exact.retries.push(nanos);
                            held.push((nanos, withdrawal));
                        }
                        None => {
                            prop_assert_eq!(gauge, 0);
                            // Beyond 43 years of the shortest steps nothing is promised but the rule.
                            let slack = exact.allows(nanos, STEP.as_nanos(), BATCH.into());
                            prop_assert!(!slack || age > Duration::from_secs(40 * 365 * 86_400), "too strict");
                            break;
                        }
                    }
                    if give_back > 0 && held.len() % (give_back + 1) == 0 {
                        let (time, withdrawal) = held.swap_remove(held.len() / 2);
                        drop(withdrawal);
                        let index = exact.retries.iter().position(|retry| *retry == time).unwrap();
                        exact.retries.swap_remove(index);
                    }
                },
            }
        }
        for (_, withdrawal) in held {
            withdrawal.spend();
        }
    }

    // Step by step and one after the other, the window is the rule to the letter as long as time goes forward; and whatever time
    // does, it is never above it.
    #[test]
    fn any_order_of_steps_keeps_the_rule(
        events in prop::collection::vec((0_u8..3, 0_u64..8, prop_oneof![0_u64..3, 0_u64..200]), 1..200),
        forward: bool,
        (slots, at_once) in (1_u64..12).prop_flat_map(|slots| (Just(slots), 0..=slots)),
        reserve in 0_u32..3,
    ) {
        let settings = Settings::new(500_000_000, reserve);
        let window = Window::new(settings, slots, at_once);
        let first = Stamped::BIRTH;
        let (mut earned, mut retries, mut now) = (Vec::new(), Vec::new(), first);
        for (kind, amount, time) in events {
            now = if forward { now + time } else { first + time };
            match kind {
                0 => {
                    window.earn(now, amount);
                    earned.push((now, amount));
                }
                1 => {
                    let withdrawn = window.withdraw(now);
                    let slot = withdrawn.unwrap_or(now);
                    prop_assert!(slot >= now);
                    let within = earned.iter().filter(|(time, _)| *time <= slot && time + slots > slot);
                    let (all, half) = settings.allowances(within.map(|(_, amount)| amount).sum());
                    let spent = |within: u64| {
                        retries.iter().filter(|time| **time <= slot && **time + within >= slot).count() as u64
                    };
                    let allows = spent(slots) < all && spent(at_once) < half;
                    prop_assert!(withdrawn.is_none() || allows, "above the rule");
                    prop_assert!(withdrawn.is_some() || !forward || !allows, "too strict");
                    retries.extend(withdrawn);
                }
                _ => if let Some(last) = retries.len().checked_sub(1) {
                    let slot = retries.remove(last - (amount as usize).min(last));
                    window.refund(slot);
                }
            }
        }
    }

    // Time that jumps about breaks nothing, and what was never earned is never spent.
    #[test]
    fn time_may_go_backwards(
        events in prop::collection::vec((0_u64..40, 0_u64..8, prop_oneof![0_u64..300, 0_u64..1 << 34]), 1..100),
    ) {
        let birth = Instant::now() + WINDOW;
        let budget = budget(0.5, 0, birth);
        let (mut earned, mut spent) = (0, 0);
        for (successes, tries, at) in events {
            let now = birth - WINDOW + Duration::from_secs(at);
            (0..successes).for_each(|_| budget.deposit(|| now));
            earned += successes;
            spent += (0..tries).filter(|_| spend(&budget, now)).count() as u64;
            prop_assert!(spent <= earned / 2);
        }
    }
}
