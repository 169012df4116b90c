use super::*;

fn cron(text: &str, zone: &str) -> Timing {
    Timing::new(&When::Cron(text.into()), zone).expect("a rule")
}

fn every(seconds: u64) -> Timing {
    Timing::new(&When::Every(Duration::from_secs(seconds)), "UTC").expect("a rule")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The times of a rule from one moment to another, as people there read them.
fn times(text: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    let timing = cron(text, zone);
    let zone = TimeZone::get(zone).expect("a zone");
    std::iter::successors(timing.next(at(from)), |at| timing.next(*at))
        .take_while(|time| *time < at(until))
        .map(|time| time.to_zoned(zone.clone()).strftime("%d %H:%M%:z").to_string())
        .collect()
}

#[test]
fn an_hour_that_is_left_out_fires_when_the_gap_ends() {
    // Berlin, 29 March 2026: 02:00 is 03:00.
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z"),
        ["29 03:00+02:00", "30 02:30+02:00"]
    );
    // New York, 8 March 2026.
    assert_eq!(
        times("0 2 * * *", "America/New_York", "2026-03-07T12:00Z", "2026-03-09T12:00Z"),
        ["08 03:00-04:00", "09 02:00-04:00"]
    );
    // Lord Howe, 4 October 2026: by half an hour only.
    assert_eq!(
        times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", "2026-10-05T00:00Z"),
        ["04 02:30+11:00", "05 02:15+11:00"]
    );
    // Santiago, 6 September 2026: midnight itself does not exist.
    assert_eq!(
        times("0 0 * * *", "America/Santiago", "2026-09-05T12:00Z", "2026-09-07T12:00Z"),
        ["06 01:00-03:00", "07 00:00-03:00"]
    );
}

#[test]
fn an_hour_that_comes_twice_fires_once() {
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-26T12:00Z"),
        ["25 02:30+02:00", "26 02:30+01:00"]
    );
    assert_eq!(
        times("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", "2026-11-02T12:00Z"),
        ["01 01:30-04:00", "02 01:30-05:00"]
    );
    assert_eq!(
        times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", "2026-04-06T00:00Z"),
        ["05 01:45+11:00", "06 01:45+10:30"]
    );
    assert_eq!(
        times("30 23 * * *", "America/Santiago", "2026-04-04T12:00Z", "2026-04-06T12:00Z"),
        ["04 23:30-03:00", "05 23:30-04:00"]
    );
}

#[test]
fn what_fires_all_the_time_goes_on_through_both_hours() {
    assert_eq!(
        times("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59Z", "2026-10-25T02:00Z"),
        ["25 02:00+02:00", "25 02:30+02:00", "25 02:00+01:00", "25 02:30+01:00"]
    );
    assert_eq!(
        times("*/30 * * * *", "America/New_York", "2026-03-08T06:29Z", "2026-03-08T07:31Z"),
        ["08 01:30-05:00", "08 03:00-04:00", "08 03:30-04:00"]
    );
}

#[test]
fn an_interval_has_the_same_ticks_for_everyone() {
    let timing = every(30);
    assert_eq!(timing.next(at("2026-01-01T00:00:10Z")), Some(at("2026-01-01T00:00:30Z")));
    assert_eq!(timing.next(at("2026-01-01T00:00:30Z")), Some(at("2026-01-01T00:01:00Z")));
}

#[test]
fn what_is_not_a_rule_is_refused() {
    for text in [
        "",
        "60 * * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "* * * * MON-",
        "* * * *",
        "* * * * * *",
        "* * * * * * *",
        "@never",
        "1,,2 * * * *",
        ",1 * * * *",
        "1, * * * *",
    ] {
        assert!(Timing::new(&When::Cron(text.into()), "UTC").is_err(), "{text:?}");
    }
    assert_eq!(
        Timing::new(&When::Cron("0 0 * * *".into()), "Europe/Atlantis").err(),
        Some(TimingError::Zone("Europe/Atlantis".into()))
    );
    assert_eq!(cron("0 0 30 2 *", "UTC").preview(at("2026-01-01T00:00Z"), 3), Err(TimingError::Never));
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_tick_on_time_fires_whatever_the_policy() {
    for policy in [CatchUp::Skip, CatchUp::One, CatchUp::All] {
        let tick = at("2026-01-01T00:00Z");
        let due = due(&every(60), policy, DAY, tick, at("2026-01-01T00:00:02Z"));
        assert_eq!(due.fire, [tick], "{policy:?}");
        assert_eq!((due.missed_count, due.next), (0, Some(at("2026-01-01T00:01Z"))));
    }
}

#[test]
fn what_was_missed_is_caught_up_by_policy() {
    let of = |policy, window| {
        let due = due(
            &every(60),
            policy,
            Duration::from_secs(window),
            at("2026-01-01T00:00Z"),
            at("2026-01-01T00:10:50Z"),
        );
        assert_eq!(due.next, Some(at("2026-01-01T00:11Z")));
        (due.fire.len(), due.missed_count)
    };
    assert_eq!(of(CatchUp::Skip, 3600), (0, 11));
    assert_eq!(of(CatchUp::One, 3600), (1, 10));
    assert_eq!(of(CatchUp::All, 3600), (11, 0));
    assert_eq!(of(CatchUp::All, 300), (5, 6));
    // No tick within the window.
    assert_eq!(of(CatchUp::One, 0), (0, 11));
}

#[test]
fn at_most_a_hundred_are_caught_up_and_the_rest_are_counted() {
    let due = due(&every(60), CatchUp::All, DAY, at("2026-01-01T00:00Z"), at("2026-01-01T10:00Z"));
    assert_eq!((due.fire.len(), due.missed.len(), due.missed_count), (100, 100, 501));
    assert_eq!(due.fire.last(), Some(&at("2026-01-01T10:00Z")));
    assert_eq!(due.fire.first(), Some(&at("2026-01-01T08:21Z")));
    assert_eq!(due.missed.last(), Some(&at("2026-01-01T08:20Z")));
}

#[test]
fn a_clock_that_jumps_by_years_ends_in_bounded_work() {
    let due = due(&every(1), CatchUp::All, DAY, at("2020-01-01T00:00Z"), at("2026-01-01T00:00Z"));
    assert_eq!(due.fire.len(), 100);
    assert!(due.missed_count >= 10_000);
    assert_eq!(due.next, Some(at("2026-01-01T00:00:01Z")));
}
