//! The idle clock as a table, and the laws that hold for every sequence of events.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(30),
    max_idle: Duration::from_secs(10),
    max_duration: Some(Duration::from_secs(1000)),
    repeat: Some(Duration::from_secs(60)),
};

fn links(token: &str) -> Links {
    Links { ssh: format!("ssh {token}@h"), ..Links::default() }
}

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn said(token: &str, idle: Option<u64>, cap: u64) -> Vec<Action> {
    vec![Action::SayLinks(links(token), Left { idle: idle.map(at), cap: Some(at(cap)) })]
}

fn end(ending: Ending) -> Vec<Action> {
    vec![Action::End(ending)]
}

fn nobody() -> Event {
    Event::Answer(Presence::Nobody, links("a"))
}

fn somebody() -> Event {
    Event::Answer(Presence::Somebody, links("a"))
}

fn unanswered() -> Event {
    Event::Answer(Presence::Unanswered, Links::default())
}

/// Feeds events and demands the actions of each.
fn play(limits: Limits, table: Vec<(u64, Event, Vec<Action>)>) {
    let mut clock = Clock::new(limits);
    for (row, (seconds, event, expected)) in table.into_iter().enumerate() {
        assert_eq!(clock.on(at(seconds), event.clone()), expected, "row {row}: {event:?} at {seconds}");
    }
}

#[test]
fn presence_is_the_bit_or_a_count_whose_server_is_up() {
    for (count, up, bit, expected) in [
        ("", true, false, Presence::Nobody),
        ("0", true, false, Presence::Nobody),
        ("1", true, false, Presence::Somebody),
        ("12\n", true, false, Presence::Somebody),
        ("1", false, false, Presence::Nobody),
        ("1", false, true, Presence::Somebody),
        ("", true, true, Presence::Somebody),
        ("rubbish", true, false, Presence::Nobody),
        ("-1", true, false, Presence::Nobody),
    ] {
        assert_eq!(presence(count, up, bit), expected, "{count} {up} {bit}");
    }
}

#[test]
fn times_are_told_in_fitting_units() {
    for (millis, expected) in [
        (0, "0 s"),
        (1, "1 s"),
        (59_999, "60 s"),
        (119_000, "119 s"),
        (120_000, "2 min"),
        (7_199_000, "119 min"),
        (10_799_500, "3 h 0 min"),
    ] {
        assert_eq!(in_words(Duration::from_millis(millis)), expected);
    }
}

#[test]
fn it_starts_when_ready_and_ends_at_max_idle() {
    play(
        LIMITS,
        vec![
            (0, Event::Tick, vec![]),
            (1, Event::Answer(Presence::Nobody, Links::default()), vec![]),
            (5, nobody(), said("a", Some(10), 1000)),
            (14, nobody(), vec![]),
            (15, nobody(), end(Ending::Idle)),
            (16, nobody(), vec![]),
        ],
    );
}

#[test]
fn it_stands_at_zero_while_somebody_is_connected() {
    play(
        LIMITS,
        vec![
            (0, nobody(), said("a", Some(10), 1000)),
            (9, somebody(), vec![]),
            (20, Event::Tick, vec![]),
            (59, somebody(), vec![]),
            (60, Event::Tick, said("a", None, 940)),
            (70, nobody(), said("a", Some(10), 930)),
            (79, somebody(), vec![]),
            (80, nobody(), said("a", Some(10), 920)),
            // Time alone never ends it: only an answer that is fresh.
            (95, Event::Tick, vec![]),
            (95, somebody(), vec![]),
            (96, nobody(), said("a", Some(10), 904)),
            (106, nobody(), end(Ending::Idle)),
        ],
    );
}

#[test]
fn a_session_that_does_not_become_ready_ends_at_the_timeout() {
    let empty = || Event::Answer(Presence::Nobody, Links::default());
    play(LIMITS, vec![(29, empty(), vec![]), (30, empty(), end(Ending::NotConnected))]);
    play(LIMITS, vec![(29, unanswered(), vec![]), (30, Event::Tick, end(Ending::NotConnected))]);
    play(LIMITS, vec![(30, nobody(), said("a", Some(10), 1000))]);
    play(LIMITS, vec![(3, Event::Exited, end(Ending::ExitedEarly))]);
}

#[test]
fn whatever_ends_it_is_told_apart() {
    for (event, ending) in [
        (Event::Exited, Ending::Exited),
        (Event::ContinueFile, Ending::ContinueFile),
        (Event::Signal(15), Ending::Signal(15)),
    ] {
        play(LIMITS, vec![(0, somebody(), said("a", None, 1000)), (1, event, end(ending)), (2, Event::Tick, vec![])]);
    }
    play(LIMITS, vec![(1, Event::Signal(2), end(Ending::Signal(2)))]);
}

#[test]
fn the_cap_is_announced_twice_and_holds_for_everybody() {
    let limits = Limits { repeat: None, ..LIMITS };
    play(
        limits,
        vec![
            (0, somebody(), said("a", None, 1000)),
            (699, somebody(), vec![]),
            (700, Event::Tick, vec![Action::AnnounceCap(at(300))]),
            (701, somebody(), vec![]),
            (940, somebody(), vec![Action::AnnounceCap(at(60))]),
            (999, somebody(), vec![]),
            (1000, somebody(), end(Ending::Cap)),
        ],
    );
    // A short session has nothing to announce that is further away than its whole length.
    for (seconds, first) in [(60, None), (61, Some((1, 60))), (300, Some((240, 60))), (301, Some((1, 300)))] {
        let mut clock = Clock::new(Limits { max_duration: Some(at(seconds)), ..limits });
        clock.on(at(0), somebody());
        let announced = (1..seconds).find_map(|now| match clock.on(at(now), Event::Tick)[..] {
            [Action::AnnounceCap(left)] => Some((now, left.as_secs())),
            _ => None,
        });
        assert_eq!(announced, first, "{seconds}");
    }
    // Late, both are one.
    play(
        limits,
        vec![
            (0, somebody(), said("a", None, 1000)),
            (950, Event::Tick, vec![Action::AnnounceCap(at(50))]),
            (951, Event::Tick, vec![]),
        ],
    );
}

#[test]
fn without_a_cap_or_repetition_nothing_is_due_but_idleness() {
    let limits = Limits { max_duration: None, repeat: None, ..LIMITS };
    let mut clock = Clock::new(limits);
    assert_eq!(clock.due(), Some(at(30)));
    clock.on(at(1), nobody());
    assert_eq!(clock.due(), Some(at(11)));
    clock.on(at(2), somebody());
    assert_eq!(clock.due(), None);
    assert_eq!(clock.on(at(1_000_000), somebody()), []);
}

#[test]
fn a_new_link_is_said_and_one_of_a_lost_server_is_not() {
    let answer = |presence, token: &str| Event::Answer(presence, links(token));
    play(
        LIMITS,
        vec![
            (0, somebody(), said("a", None, 1000)),
            (1, answer(Presence::Somebody, "b"), said("b", None, 999)),
            (2, Event::ServerLost, vec![]),
            (3, answer(Presence::Nobody, "b"), vec![]),
            (4, Event::ServerBack, vec![]),
            // The same link, because it holds again.
            (5, answer(Presence::Nobody, "b"), said("b", Some(8), 995)),
            (6, answer(Presence::Nobody, "b"), vec![]),
            (7, Event::ServerBack, vec![]),
            (8, answer(Presence::Nobody, "b"), vec![]),
            // While the server is away nobody can come, so the clock runs.
            (9, Event::ServerLost, vec![]),
            (13, answer(Presence::Nobody, "b"), end(Ending::Idle)),
        ],
    );
}

#[test]
fn the_link_is_said_once_whenever_somebody_leaves() {
    play(
        LIMITS,
        vec![
            (0, somebody(), said("a", None, 1000)),
            // One of several.
            (1, Event::SomebodyLeft, vec![]),
            (2, somebody(), said("a", None, 998)),
            (3, somebody(), vec![]),
            // The last one, whichever is seen first.
            (4, Event::SomebodyLeft, vec![]),
            (5, nobody(), said("a", Some(10), 995)),
            (6, somebody(), vec![]),
            (7, nobody(), said("a", Some(10), 993)),
            (8, Event::SomebodyLeft, vec![]),
            (9, nobody(), vec![]),
        ],
    );
}

#[test]
fn a_tmate_that_answers_no_more_is_left_after_a_minute() {
    let limits = Limits { repeat: None, ..LIMITS };
    play(
        limits,
        vec![
            (0, somebody(), said("a", None, 1000)),
            (20, unanswered(), vec![]),
            (79, unanswered(), vec![]),
            (79, somebody(), vec![]),
            (80, unanswered(), vec![]),
            (139, unanswered(), vec![]),
            (140, unanswered(), end(Ending::Stuck)),
        ],
    );
    // Where nobody was there it is idle.
    play(
        limits,
        vec![
            (0, nobody(), said("a", Some(10), 1000)),
            (5, unanswered(), vec![]),
            (10, unanswered(), end(Ending::Idle)),
        ],
    );
}

fn an_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(nobody()),
        4 => Just(somebody()),
        1 => Just(Event::Answer(Presence::Nobody, Links::default())),
        1 => Just(Event::Answer(Presence::Somebody, links("b"))),
        2 => Just(unanswered()),
        1 => Just(Event::SomebodyLeft),
        1 => Just(Event::ServerLost),
        1 => Just(Event::ServerBack),
        4 => Just(Event::Tick),
    ]
}

fn some_limits() -> impl Strategy<Value = Limits> {
    (1..100_u64, 1..200_u64, proptest::option::of(1..2000_u64), proptest::option::of(1..100_u64)).prop_map(
        |(connect_timeout, max_idle, max_duration, repeat)| Limits {
            connect_timeout: at(connect_timeout),
            max_idle: at(max_idle),
            max_duration: max_duration.map(at),
            repeat: repeat.map(at),
        },
    )
}

proptest! {
    /// Nothing but the cap ends a session while somebody is connected and tmate answers.
    #[test]
    fn nobody_is_thrown_out_before_the_cap(
        limits in some_limits(),
        events in proptest::collection::vec((0..40_000_u64, an_event()), 1..200),
    ) {
        let mut clock = Clock::new(limits);
        let (mut now, mut ready, mut busy, mut unanswered) = (Duration::ZERO, None, false, None);
        for (pause, event) in events {
            now += Duration::from_millis(pause);
            if let Event::Answer(presence, links) = &event {
                if ready.is_none() && !links.ssh.is_empty() {
                    ready = Some(now);
                }
                match presence {
                    Presence::Somebody => busy = true,
                    Presence::Nobody => busy = false,
                    Presence::Unanswered => {}
                }
                unanswered = if *presence == Presence::Unanswered { unanswered.or(Some(now)) } else { None };
            }
            for action in clock.on(now, event) {
                let Action::End(ending) = action else { continue };
                match ending {
                    Ending::Cap => {
                        let cap = ready.unwrap() + limits.max_duration.unwrap();
                        prop_assert!(now >= cap);
                    }
                    Ending::Stuck => prop_assert!(now >= unanswered.unwrap() + STUCK),
                    Ending::Idle => prop_assert!(!busy, "ended at {now:?} with somebody connected"),
                    Ending::NotConnected => prop_assert!(ready.is_none() && now >= limits.connect_timeout),
                    other => prop_assert!(false, "{other:?} out of nothing"),
                }
                return Ok(());
            }
        }
    }

    /// A session that is asked when it is due never outlives MAX_IDLE without anybody, and ends exactly then.
    #[test]
    fn none_outlives_max_idle_without_anybody(
        limits in some_limits(),
        visits in proptest::collection::vec((0..300_u64, 1..300_u64), 0..8),
        poll in 1..7_u64,
    ) {
        let mut clock = Clock::new(limits);
        // When somebody is there, in seconds.
        let mut spans = Vec::new();
        let mut from = 0;
        for (before, stay) in visits {
            from += before;
            spans.push(from..from + stay);
            from += stay;
        }
        let is_there = |now: Moment| spans.iter().any(|span| span.contains(&now.as_secs()));
        let (mut now, mut alone_since) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..100_000 {
            let there = is_there(now);
            if there {
                alone_since = now + at(poll);
            }
            let event = if there { somebody() } else { nobody() };
            if let Some(Action::End(ending)) = clock.on(now, event).last() {
                match ending {
                    Ending::Idle => prop_assert!(!there && now <= alone_since + limits.max_idle),
                    Ending::Cap => prop_assert_eq!(Some(now), limits.max_duration),
                    other => prop_assert!(false, "{:?}", other),
                }
                return Ok(());
            }
            prop_assert!(there || now < alone_since + limits.max_idle, "alone since {alone_since:?}, now {now:?}");
            // What the session does: ask every so often, and when something is due.
            let next = now + at(poll);
            now = clock.due().map_or(next, |due| due.min(next)).max(now + Duration::from_millis(1));
        }
        prop_assert!(false, "it never ended");
    }

    /// Each announcement comes once, and only before the cap.
    #[test]
    fn announcements_come_at_most_twice(limits in some_limits(), pauses in proptest::collection::vec(0..100_u64, 1..100)) {
        let mut clock = Clock::new(limits);
        let mut now = Duration::ZERO;
        let mut announced = 0;
        for pause in pauses {
            now += at(pause);
            for action in clock.on(now, somebody()) {
                if let Action::AnnounceCap(left) = action {
                    announced += 1;
                    prop_assert!(left <= ANNOUNCED[0] && !left.is_zero());
                }
            }
        }
        prop_assert!(announced <= 2);
    }
}
