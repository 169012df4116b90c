use std::time::Duration;

use anyhow::Result;
use streamspace_testkit::{HostClock, Program, eventually};

#[tokio::test]
async fn the_clock_of_a_running_process_jumps() -> Result<()> {
    let clock = HostClock::new()?;
    // One process that asks all the time: `date` alone would read the file at its start.
    let script = "use Time::HiRes 'usleep'; $| = 1; while (1) { print time(), qq(\\n); usleep 20000 }";
    let process = Program::new("perl").args(["-e", script]).with_faketime(&clock).start()?;
    let ahead = async || {
        let last: i64 = process.output().lines().last()?.parse().ok()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        Some(last - i64::try_from(now).ok()?)
    };
    for jump in [0, 3600, -3600] {
        clock.jump(jump)?;
        let close = async || ahead().await.filter(|ahead| (ahead - jump).abs() <= 2);
        eventually(Duration::from_secs(5), format_args!("the clock is {jump} s ahead"), close).await;
    }
    Ok(())
}
