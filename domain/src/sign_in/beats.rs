//! When refusals are told: on the beat, so that a row more or less that was written is not in the time.

use std::time::Duration;

use tokio::time::Instant;

const BEAT: Duration = Duration::from_millis(100);

/// Of a request that came then and for which so long was hashed: the beat after that, and one for what is
/// read and written beside it. Only where that was slower still it is in the time.
pub(super) fn next(came: Instant, hashed: Duration) -> Instant {
    let beat_after = |time: Duration| {
        let beats = time.as_millis() / BEAT.as_millis() + 1;
        came + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
    };
    let told = beat_after(hashed) + BEAT;
    if told >= Instant::now() { told } else { beat_after(came.elapsed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_not_in_the_time() {
        let ms = Duration::from_millis;
        let told_after = |took: u64, hashed: u64| {
            let came = Instant::now().checked_sub(ms(took)).expect("up for a while");
            (next(came, ms(hashed)) - came).as_millis()
        };
        assert_eq!((told_after(31, 30), told_after(95, 30), told_after(150, 30)), (200, 200, 200));
        assert_eq!((told_after(131, 130), told_after(260, 130)), (300, 300));
        assert_eq!(told_after(430, 30), 500);
    }
}
