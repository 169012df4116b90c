use std::io::Write as _;

/// Whether a test that takes long runs now: always in `make test-long`, else on every fifth day,
/// another fifth of them each day, so that none is forgotten.
pub fn long_test(name: &str) -> bool {
    const DAY: u64 = 24 * 60 * 60;
    let all = std::env::var("STREAMSPACE_TEST_LONG").is_ok_and(|value| value == "1");
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let day = since_epoch.expect("the clock is past 1970").as_secs() / DAY;
    let place = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let runs = all || place % 5 == day % 5;
    // Written past the capture of the test runner: what did not run must be seen to not have run.
    let _ = writeln!(std::io::stderr(), "long test {name}: {}", if runs { "runs" } else { "not today" });
    runs
}
