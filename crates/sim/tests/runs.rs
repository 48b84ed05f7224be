//! What the simulator has found once stays fixed, and a few clusters survive.

use pgward_sim::campaign::{Failure, Limits, Progress, Summary, campaign, plan_of};
use pgward_sim::run::run;

struct Silent;

impl Progress for Silent {
    fn broke(&self, _: &Failure) {}

    fn ran(&self, _: &Summary) {}
}

/// Seeds that broke an invariant once. Each has its line in CHANGELOG.md.
#[test]
fn what_was_found_stays_fixed() {
    for seed in [627, 692] {
        let outcome = run(seed, &plan_of(seed)).unwrap();
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

#[test]
fn a_few_clusters_survive_what_happens_to_them() {
    let limits = Limits { first: 1, seeds: 40, time: None, failures: 1, jobs: 2, only: &[], focus: None };
    let summary = campaign(&limits, &Silent, &|| {}).unwrap();
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
    assert!(summary.leader_changes > 0, "nothing happened");
    assert!(summary.acknowledged > 0, "nothing was written");
}
