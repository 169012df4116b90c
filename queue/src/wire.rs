//! Notices as NOTIFY payloads: lines of tab-separated fields, packed into as few as fit.
//!
//! A payload is at most 8,000 bytes. What does not fit becomes "look everywhere": a listener then
//! spends one scan instead of many reads.

use jiff::Timestamp;
use streamspace_common::TenantId;
use uuid::Uuid;

use crate::notice::{Event, Lane, Notices, Topic};

/// What workers and schedulers listen to.
pub(crate) const ENGINE: &str = "streamspace_engine";
/// What API processes listen to.
pub(crate) const LIVE: &str = "streamspace_live";

const MAX_PAYLOAD: usize = 7_900;
/// Payloads on one channel in one flush.
const MAX_PAYLOADS: usize = 4;
/// Live events in one flush. At tens of thousands a second nobody follows each; whoever watches
/// reads again what it watches, which costs the database less than to carry them all.
const MAX_EVENTS: usize = 100;

/// The payloads for the two channels.
pub(crate) fn encode(sender: Uuid, notices: &Notices) -> (Vec<String>, Vec<String>) {
    let mut engine = Packer::new(sender);
    if notices.everything {
        engine.line("*");
    }
    if notices.controls {
        engine.line("c");
    }
    for (boot, job) in &notices.cancel {
        engine.line(&format!("x\t{}\t{}", boot.0.simple(), job.0.simple()));
    }
    for queue in &notices.freed {
        engine.line(&format!("f\t{queue}"));
    }
    if let Some(at) = notices.due {
        engine.line(&format!("d\t{}", at.as_microsecond()));
    }
    for (lane, at) in &notices.claimable {
        engine.line(&format!("w\t{}\t{}\t{}", lane.name, lane.tenant.0.simple(), at.as_microsecond()));
    }
    let mut live = Packer::new(sender);
    if notices.events.len() > MAX_EVENTS {
        live.line("*");
        return (engine.finish(), live.finish());
    }
    for event in &notices.events {
        live.line(&format!("e\t{}\t{}\t{}", event.topic.as_str(), event.id.simple(), event.version));
    }
    (engine.finish(), live.finish())
}

struct Packer {
    sender: String,
    full: Vec<String>,
    open: String,
    overflow: bool,
}

impl Packer {
    fn new(sender: Uuid) -> Self {
        Self { sender: sender.simple().to_string(), full: Vec::new(), open: String::new(), overflow: false }
    }

    fn line(&mut self, line: &str) {
        if self.overflow {
            return;
        }
        if self.open.len() + line.len() + 1 > MAX_PAYLOAD {
            if self.full.len() + 1 == MAX_PAYLOADS {
                self.overflow = true;
                return;
            }
            self.full.push(std::mem::take(&mut self.open));
        }
        if self.open.is_empty() {
            self.open.push_str(&self.sender);
        }
        self.open.push('\n');
        self.open.push_str(line);
    }

    fn finish(mut self) -> Vec<String> {
        if self.overflow {
            // The last payload gives up its end to say that there was more.
            self.open.truncate(self.open.rfind('\n').unwrap_or(0));
            self.open.push_str("\n*");
        }
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

/// Reads a payload; `None` when this process sent it. Lines that a newer release added are skipped.
pub(crate) fn decode(me: Uuid, payload: &str) -> Option<Notices> {
    let mut lines = payload.lines();
    if lines.next()? == me.simple().to_string() {
        return None;
    }
    let mut notices = Notices::default();
    for line in lines {
        read_line(line, &mut notices);
    }
    Some(notices)
}

fn read_line(line: &str, notices: &mut Notices) -> Option<()> {
    let mut fields = line.split('\t');
    match fields.next()? {
        "*" => notices.everything = true,
        "c" => notices.controls = true,
        "f" => {
            notices.freed.insert(fields.next()?.to_owned());
        }
        "d" => notices.due(micros(fields.next()?)?),
        "x" => {
            let boot: Uuid = fields.next()?.parse().ok()?;
            let job: Uuid = fields.next()?.parse().ok()?;
            notices.cancel.push((boot.into(), job.into()));
        }
        "w" => {
            let name = fields.next()?.to_owned();
            let tenant: Uuid = fields.next()?.parse().ok()?;
            notices.claimable(Lane { name, tenant: TenantId(tenant) }, micros(fields.next()?)?);
        }
        "e" => {
            let topic = fields.next()?;
            let topic = Topic::ALL.into_iter().find(|t| t.as_str() == topic)?;
            let id = fields.next()?.parse().ok()?;
            let version = fields.next()?.parse().ok()?;
            notices.events.push(Event { topic, id, version });
        }
        _ => {}
    }
    Some(())
}

fn micros(text: &str) -> Option<Timestamp> {
    Timestamp::from_microsecond(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use streamspace_common::{BootId, JobId};

    use super::*;

    fn sample() -> Notices {
        let mut notices = Notices::default();
        notices.claimable(
            Lane { name: "batch/batch.run@2".into(), tenant: TenantId::new() },
            Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
        );
        notices.due(Timestamp::from_microsecond(17).expect("a time"));
        notices.cancel.push((BootId::new(), JobId::new()));
        notices.freed.insert("sessions".into());
        notices.controls = true;
        notices.changed(JobId::new(), 42);
        notices
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        let (engine, live) = encode(Uuid::now_v7(), &sample());
        let mut heard = Notices::default();
        for payload in engine.iter().chain(&live) {
            heard.merge(decode(Uuid::now_v7(), payload).expect("another's"));
        }
        assert_eq!(heard.claimable.len(), 1);
        assert_eq!(heard.events.len(), 1);
        assert!(heard.controls && heard.due.is_some() && heard.freed.contains("sessions"));
        assert_eq!(heard.cancel.len(), 1);
    }

    #[test]
    fn own_payloads_are_not_heard_twice() {
        let me = Uuid::now_v7();
        let (engine, _) = encode(me, &sample());
        assert_eq!(decode(me, &engine[0]), None);
    }

    #[test]
    fn a_flood_of_events_says_read_again() {
        let mut notices = Notices::default();
        for version in 0..200 {
            notices.changed(JobId::new(), version);
        }
        let (_, live) = encode(Uuid::now_v7(), &notices);
        let heard = decode(Uuid::now_v7(), &live[0]).expect("another's");
        assert!(live.len() == 1 && heard.everything && heard.events.is_empty());
    }

    #[test]
    fn what_does_not_fit_says_look_everywhere() {
        let mut notices = Notices::default();
        for _ in 0..2_000 {
            let lane = Lane { name: "maintenance".into(), tenant: TenantId::new() };
            notices.claimable(lane, Timestamp::UNIX_EPOCH);
        }
        let (engine, live) = encode(Uuid::now_v7(), &notices);
        assert!(live.is_empty());
        assert_eq!(engine.len(), MAX_PAYLOADS);
        assert!(engine.iter().all(|payload| payload.len() < 8_000));
        let last = decode(Uuid::now_v7(), engine.last().expect("one")).expect("another's");
        assert!(last.everything);
    }
}
