//! The counters of the `metrics` facade, kept to be looked at.
#![allow(unreachable_pub)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// All counters by their name and the values of their labels: `calls_total faults success`.
#[derive(Clone, Debug, Default)]
pub struct Counted(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Counted {
    pub fn get(&self, name: &str) -> usize {
        let numbers = self.0.lock().unwrap();
        numbers.get(name).map_or(0, |number| number.load(SeqCst) as usize)
    }

    /// The sum of all whose name begins like this.
    pub fn sum(&self, prefix: &str) -> usize {
        let names: Vec<_> = self.0.lock().unwrap().keys().cloned().collect();
        names.iter().filter(|name| name.starts_with(prefix)).map(|name| self.get(name)).sum()
    }
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut name = key.name().trim_start_matches("tower_tenacity_").to_owned();
        for label in key.labels() {
            name.push(' ');
            name.push_str(label.value());
        }
        Counter::from_arc(self.0.lock().unwrap().entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
