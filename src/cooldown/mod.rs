//! One caller's 429 holds back everyone who shares the quota.
