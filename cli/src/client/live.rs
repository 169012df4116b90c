//! Jobs while they run: bars on a terminal, else a line for each change. All of it goes to standard
//! error, so that standard output holds the result alone.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ::console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::{
    job_view::Job,
    output::{Format, Item, Output},
    progress_view::Progress,
    text::clean,
};
use crate::console;

/// Where the changes of watched jobs go.
pub enum Live {
    Bars {
        all: MultiProgress,
        bars: HashMap<String, ProgressBar>,
    },
    Lines(HashMap<String, Said>),
    /// `watch -o json`: each change on standard output.
    Objects(Output),
    Nothing,
}

/// What the newest line of a job said.
pub struct Said {
    state: String,
    words: String,
    percent: f64,
    at: Instant,
}

const LOST: &str = "the server does not answer; trying again";

impl Said {
    fn new(words: String, percent: f64) -> Self {
        Self { state: String::new(), words, percent, at: Instant::now() }
    }
}

/// A line for progress comes after so many percent, or so long.
const STEP: f64 = 10.0;
const INTERVAL: Duration = Duration::from_secs(10);

impl Live {
    /// `objects`: whether programs want every change.
    pub fn new(output: Output, objects: bool) -> Self {
        if output.quiet {
            Self::Nothing
        } else if output.format != Format::Table && objects {
            Self::Objects(output)
        } else if Term::stderr().is_term() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::Bars { all, bars: HashMap::new() }
        } else {
            Self::Lines(HashMap::new())
        }
    }

    /// Nobody answers for this job. The next answer tells that it is over.
    pub fn lost(&mut self, id: &str) {
        match self {
            Self::Bars { bars, .. } => {
                if let Some(bar) = bars.get(id) {
                    bar.set_message(LOST);
                }
            }
            Self::Lines(said) => {
                let last = said.entry(id.to_owned()).or_insert_with(|| Said::new(String::new(), 0.0));
                if last.words != LOST {
                    *last = Said::new(LOST.to_owned(), last.percent);
                    console::say(format_args!("{id}  {LOST}"));
                }
            }
            Self::Objects(_) | Self::Nothing => {}
        }
    }

    pub fn show(&mut self, item: &Item<Job>) {
        let job = &item.view;
        match self {
            Self::Bars { all, bars } => {
                let bar = bars.entry(job.id.clone()).or_insert_with(|| new_bar(all));
                draw(bar, job);
            }
            Self::Lines(said) => {
                if let Some(line) = next_line(said, job, Instant::now()) {
                    console::say(line);
                }
            }
            Self::Objects(output) => output.next(item),
            Self::Nothing => {}
        }
    }

    /// Leaves the terminal as it was.
    pub fn clear(&mut self) {
        if let Self::Bars { all, bars } = self {
            for bar in bars.values() {
                bar.finish_and_clear();
            }
            all.clear().ok();
        }
    }
}

fn new_bar(all: &MultiProgress) -> ProgressBar {
    let bar = all.add(ProgressBar::new(1000));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// With a percentage a bar, without one a sign that it is alive.
fn draw(bar: &ProgressBar, job: &Job) {
    let progress = job.progress.as_ref().filter(|_| job.state == "running" || job.terminal);
    let percent = progress.and_then(Progress::percent);
    let template = match (job.terminal, percent) {
        (true, _) => "{prefix} {msg}",
        (false, Some(_)) => "{spinner} {prefix} {bar:28.cyan/dim} {percent:>3}% {msg}",
        (false, None) => "{spinner} {prefix} {msg} {elapsed:.dim}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.set_prefix(name(job));
    // Tenths of a percent: a long job still moves.
    bar.set_position(percent.map_or(0, |percent| (percent * 10.0) as u64));
    let words = match progress {
        _ if job.terminal => {
            job.tone().style().for_stderr().apply_to(job.ending(Timestamp::now())).to_string()
        }
        Some(progress) if job.cancel_requested_at.is_none() => progress.words(),
        _ => state_words(job),
    };
    bar.set_message(words);
    if job.terminal {
        bar.finish();
    }
}

/// The kind, and enough of the id to tell it from its neighbours: a UUIDv7 begins with its time.
fn name(job: &Job) -> String {
    let short = job.id.rsplit('-').next().unwrap_or(&job.id);
    format!("{} {short}", clean(&job.kind))
}

fn state_words(job: &Job) -> String {
    match job.remark(Timestamp::now()) {
        remark if remark.is_empty() => job.state.clone(),
        remark => format!("{}: {}", job.state, clean(&remark)),
    }
}

/// `None`: nothing that is worth another line.
fn next_line(said: &mut HashMap<String, Said>, job: &Job, now: Instant) -> Option<String> {
    // The end is the command's result, and comes on standard output.
    if job.terminal {
        return None;
    }
    let progress = job.progress.as_ref().filter(|_| job.state == "running");
    let percent = progress.and_then(Progress::percent).unwrap_or(0.0);
    let mut words = match progress {
        Some(progress) if job.cancel_requested_at.is_none() => progress.to_string(),
        _ => state_words(job),
    };
    if words.is_empty() {
        words.clone_from(&job.state);
    }
    if let Some(last) = said.get(&job.id) {
        let moved = (percent - last.percent).abs() >= STEP || now.duration_since(last.at) >= INTERVAL;
        if last.state == job.state && (!moved || last.words == words) {
            return None;
        }
    }
    let line = format!("{}  {}  {words}", job.id, clean(&job.kind));
    let news = Said { state: job.state.clone(), words, percent, at: now };
    said.insert(job.id.clone(), news);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, percent: f64) -> Job {
        let text = format!(
            r#"{{"id": "7", "kind": "batch.run", "state": "{state}", "terminal": {}, "progress": {{"percent": {percent}}}}}"#,
            state == "succeeded"
        );
        serde_json::from_str(&text).expect("valid")
    }

    #[test]
    fn a_log_gets_states_and_every_tenth_percent() {
        let (mut said, start) = (HashMap::new(), Instant::now());
        let mut lines = Vec::new();
        for (state, percent, second) in [
            ("queued", 0.0, 0),
            ("running", 0.0, 1),
            ("running", 4.0, 2),
            ("running", 11.0, 3),
            ("running", 12.0, 4),
            ("running", 13.0, 20),
            ("running", 13.0, 60),
            ("succeeded", 100.0, 61),
        ] {
            let now = start + Duration::from_secs(second);
            lines.extend(next_line(&mut said, &job(state, percent), now));
        }
        let said: Vec<_> = lines.iter().map(|line| line.trim_start_matches("7  batch.run  ")).collect();
        assert_eq!(said, ["queued", "0%", "11%", "13%"]);
    }
}
