use super::*;

fn told(instance: &str) -> Told {
    let lane = LaneIds { group: "g".into(), member_id: Some(format!("{instance}-0")), transactional_id: format!("t-{instance}-0") };
    Told { instance: instance.into(), stops: false, lanes: vec![lane] }
}

/// A watch, and a clock that the test moves by 50 ms at a time.
struct Scene {
    watch: Watch,
    now: Duration,
    heard: bool,
}

impl Scene {
    /// The watch of `b`, which knows the process at each of these endpoints by the endpoint's name.
    fn knowing(endpoints: &[&str]) -> Self {
        let mut scene = Scene { watch: Watch::new("b".into()), now: Duration::ZERO, heard: true };
        scene.watch.list(&endpoints.iter().map(ToString::to_string).collect(), scene.now);
        scene.run(500, |at| Look::Told(told(at)));
        scene
    }

    /// Runs for so long; each look has this answer at once. Returns the evictions, with the time until each.
    fn run(&mut self, millis: u64, answer: impl Fn(&str) -> Look) -> Vec<(Duration, String, Why)> {
        let (begun, mut evictions) = (self.now, Vec::new());
        while self.now < begun + Duration::from_millis(millis) {
            self.now += Duration::from_millis(50);
            while let Some(step) = self.watch.poll(self.now, self.heard) {
                match step {
                    Step::Look(endpoint) => self.watch.handle_look(&endpoint, answer(&endpoint), self.now),
                    Step::Evict { told, why, .. } => evictions.push((self.now - begun, told.instance, why)),
                }
            }
        }
        evictions
    }
}

fn lives_but(dead: &'static str, look: Look) -> impl Fn(&str) -> Look {
    move |at| if at == dead { look.clone() } else { Look::Told(told(at)) }
}

#[test]
fn who_refuses_twice_is_evicted_at_once_and_only_once() {
    let mut scene = Scene::knowing(&["c", "d"]);
    let evictions = scene.run(200_000, lives_but("c", Look::Refused));
    assert_eq!(evictions.len(), 1, "{evictions:?}");
    let (took, who, why) = &evictions[0];
    assert!(*took <= LOOK_EVERY + 2 * LOOK_AGAIN && who == "c" && *why == Why::Refused, "{evictions:?}");
}

#[test]
fn one_refusal_is_none() {
    let mut scene = Scene::knowing(&["c"]);
    let refused = std::cell::Cell::new(false);
    let evictions = scene.run(60_000, |at| match refused.replace(!refused.get()) {
        true => Look::Refused,
        false => Look::Told(told(at)),
    });
    assert_eq!(evictions, []);
}

#[test]
fn who_is_silent_is_evicted_after_two_and_a_half_seconds() {
    let mut scene = Scene::knowing(&["c"]);
    let evictions = scene.run(10_000, |_| Look::Silent);
    assert!(evictions.len() == 1 && evictions[0].0 >= SILENCE - LOOK_EVERY && evictions[0].0 < SILENCE + LOOK_EVERY, "{evictions:?}");
}

#[test]
fn silence_counts_only_while_we_are_heard_ourselves() {
    let mut scene = Scene::knowing(&["c"]);
    scene.heard = false;
    assert_eq!(scene.run(10_000, |_| Look::Silent), []);
    scene.heard = true;
    let evictions = scene.run(2_400, |_| Look::Silent);
    assert_eq!(evictions, [], "what was before does not count");
    assert_eq!(scene.run(500, |_| Look::Silent).len(), 1);
}

#[test]
fn silence_does_not_count_over_a_gap_of_our_own() {
    let mut scene = Scene::knowing(&["c"]);
    scene.run(2_000, |_| Look::Silent);
    scene.now += Duration::from_secs(20);
    assert_eq!(scene.run(2_400, |_| Look::Silent), []);
    assert_eq!(scene.run(500, |_| Look::Silent).len(), 1);
}

#[test]
fn who_stops_in_good_order_or_has_told_nothing_is_left_alone() {
    let mut scene = Scene::knowing(&["c"]);
    scene.run(500, |at| Look::Told(Told { stops: true, ..told(at) }));
    assert_eq!(scene.run(10_000, |_| Look::Refused), []);
    let mut scene = Scene::knowing(&[]);
    scene.watch.list(&["c".to_owned()].into(), scene.now);
    scene.run(1_000, |_| Look::Lives);
    assert_eq!(scene.run(10_000, |_| Look::Refused), []);
}

#[test]
fn who_stops_moves_partitions_before_and_after_it_is_gone() {
    let mut scene = Scene::knowing(&["c"]);
    assert!(!scene.watch.expects_news(Duration::ZERO, scene.now));
    scene.run(500, |at| Look::Told(Told { stops: true, ..told(at) }));
    assert!(scene.watch.expects_news(Duration::ZERO, scene.now), "it says so");
    scene.run(500, |_| Look::Refused);
    assert!(scene.watch.expects_news(Duration::ZERO, scene.now), "it is still listed");
    scene.run(500, |at| Look::Told(told(at)));
    assert!(!scene.watch.expects_news(Duration::ZERO, scene.now), "it is back");
}

#[test]
fn nobody_evicts_himself_or_who_has_come_back_elsewhere() {
    let mut scene = Scene::knowing(&["c"]);
    scene.run(500, |_| Look::Told(told("b")));
    assert_eq!(scene.run(10_000, |_| Look::Refused), []);
    let mut scene = Scene::knowing(&["c", "d"]);
    let evictions = scene.run(300, |at| if at == "d" { Look::Told(told("c")) } else { Look::Silent });
    assert_eq!([evictions, scene.run(10_000, lives_but("c", Look::Refused))], [[], []]);
}

#[test]
fn who_comes_back_is_evicted_again_but_not_within_a_minute() {
    let mut scene = Scene::knowing(&["c"]);
    assert_eq!(scene.run(1_000, |_| Look::Refused).len(), 1);
    scene.run(1_000, |at| Look::Told(told(at)));
    let evictions = scene.run(100_000, |_| Look::Refused);
    assert!(evictions.len() == 1 && evictions[0].0 >= EVICT_EVERY - Duration::from_secs(2), "{evictions:?}");
}

#[test]
fn the_smallest_of_those_alive_acts_and_the_next_when_it_does_not() {
    let mut scene = Scene::knowing(&["a", "c"]);
    let evictions = scene.run(1_800, lives_but("c", Look::Refused));
    assert_eq!(evictions, [], "it is the turn of a");
    assert!(scene.watch.expects_news(Duration::ZERO, scene.now));
    assert_eq!(scene.run(1_000, lives_but("c", Look::Refused)).len(), 1);
    // When a has acted, c is listed no more.
    let mut scene = Scene::knowing(&["a", "c"]);
    scene.run(1_000, lives_but("c", Look::Refused));
    scene.watch.list(&["a".to_owned()].into(), scene.now);
    assert_eq!(scene.run(10_000, lives_but("c", Look::Refused)), []);
    assert!(!scene.watch.expects_news(Duration::ZERO, scene.now));
    // When a is dead, too, nobody waits for it.
    let mut scene = Scene::knowing(&["a", "c"]);
    let evictions = scene.run(1_000, |_| Look::Refused);
    assert_eq!(evictions.len(), 2, "{evictions:?}");
}

/// Numbers without a pattern: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// All that has happened to one endpoint, newest last.
#[derive(Default)]
struct Past {
    looks: Vec<(Duration, Look)>,
    evicted: Option<Duration>,
}

/// Anything in any order, against the rules as the books have them.
#[test]
fn whatever_happens_nobody_is_evicted_against_the_rules() {
    let mut all = [0; 2];
    for seed in 0..600 {
        let mut numbers = Numbers(seed);
        let mut watch = Watch::new("m".into());
        let names: Vec<String> = ["c", "f", "p", "t"].map(String::from).into();
        let mut listed: BTreeSet<String> = names.iter().cloned().collect();
        let mut past: BTreeMap<String, Past> = BTreeMap::new();
        // When we were last cut off, or stood still.
        let (mut now, mut cut_off, mut heard) = (Duration::ZERO, Duration::ZERO, true);
        watch.list(&listed, now);
        let mut moods = [0_u64; 4];
        for _ in 0..1_500 {
            now += Duration::from_millis(numbers.below(100));
            if numbers.below(300) == 0 {
                now += GAP + Duration::from_secs(numbers.below(20));
                cut_off = now;
            }
            if numbers.below(60) == 0 {
                heard = numbers.below(4) > 0;
            }
            if numbers.below(150) == 0 {
                let name = names[numbers.below(4) as usize].clone();
                if !listed.remove(&name) {
                    listed.insert(name.clone());
                }
                past.entry(name).or_default().looks.clear();
                watch.list(&listed, now);
            }
            if numbers.below(25) == 0 {
                moods[numbers.below(4) as usize] = numbers.below(8);
            }
            if !heard {
                cut_off = now;
            }
            while let Some(step) = watch.poll(now, heard) {
                match step {
                    Step::Look(at) => {
                        let index = names.iter().position(|name| *name == at).unwrap();
                        let look = match moods[index] {
                            0..3 => Look::Told(Told { stops: numbers.below(20) == 0, ..told(&at) }),
                            3 => Look::Lives,
                            4 | 5 => Look::Silent,
                            6 => Look::Refused,
                            _ => [Look::Silent, Look::Refused, Look::Lives][numbers.below(3) as usize].clone(),
                        };
                        past.entry(at.clone()).or_default().looks.push((now, look.clone()));
                        watch.handle_look(&at, look, now);
                    }
                    Step::Evict { endpoint, told, why } => {
                        assert!(listed.contains(&endpoint));
                        let past = past.get_mut(&endpoint).unwrap();
                        let last = past.looks.iter().rev().find_map(|(_, look)| match look {
                            Look::Told(told) => Some(told),
                            _ => None,
                        });
                        assert_eq!(Some(&told), last, "seed {seed}: what it told last");
                        assert!(!told.stops, "seed {seed}: it stops in good order");
                        assert!(past.evicted.is_none_or(|at| now >= at + EVICT_EVERY), "seed {seed}: too often");
                        let answers = |look: &Look| matches!(look, Look::Told(_) | Look::Lives);
                        match why {
                            Why::Refused => {
                                let newest: Vec<&Look> = past.looks.iter().rev().take(2).map(|(_, look)| look).collect();
                                assert_eq!(newest, [&Look::Refused; 2], "seed {seed}");
                            }
                            Why::Silent => {
                                let answered = past.looks.iter().rev().find(|(_, look)| answers(look)).unwrap().0;
                                assert!(heard && now >= answered.max(cut_off) + SILENCE, "seed {seed}: {now:?} {answered:?} {cut_off:?}");
                            }
                        }
                        past.evicted = Some(now);
                        past.looks.clear();
                        all[usize::from(why == Why::Silent)] += 1;
                    }
                }
            }
        }
    }
    assert!(all.iter().all(|count| *count > 100), "{all:?}");
}

#[test]
fn all_ids_are_fenced_before_the_first_farewell_and_who_has_not_joined_has_none() {
    let mut told = told("c");
    told.lanes.push(LaneIds { group: "g".into(), member_id: None, transactional_id: "t-c-1".into() });
    let fence = |id: &str| EvictionStep::Fence { transactional_id: id.into() };
    let leave = EvictionStep::Leave { group: "g".into(), member_id: "c-0".into() };
    assert_eq!(told.eviction(Guarantee::ExactlyOnce), [fence("t-c-0"), fence("t-c-1"), leave.clone()]);
    assert_eq!(told.eviction(Guarantee::AtLeastOnce), [leave]);
}
