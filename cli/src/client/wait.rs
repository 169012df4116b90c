//! Waits for jobs, and says by the exit code how they ended.

use std::{cell::RefCell, time::Duration};

use clap::Args;
use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;

use super::{
    Client,
    error::Error,
    exit::Exit,
    follow::{Follow, News},
    job_view::Job,
    live::Live,
    output::Item,
    text::parse_duration,
};
use crate::console;

/// For commands that start something.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until the job has ended, and tell by the exit code how
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this, such as 90s or 2h
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// What was waited for, and whether it counts as done when it is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Success,
    /// `cancel`: any end will do, but a failure is told.
    End,
}

impl Aim {
    fn exit(self, job: &Job) -> Exit {
        match job.state.as_str() {
            "failed" => Exit::JobFailed,
            "cancelled" if self == Self::Success => Exit::JobCancelled,
            _ => Exit::Succeeded,
        }
    }
}

/// How waiting is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// The jobs when they have ended.
    Ends,
    /// `watch`: every change.
    Changes,
}

/// Follows all of them; the worst end is the command's.
pub async fn for_jobs(
    client: &Client,
    ids: &[String],
    timeout: Option<Duration>,
    aim: Aim,
    show: Show,
) -> Result<Exit, Error> {
    let live = RefCell::new(Live::new(client.output, show == Show::Changes));
    let mut ended = Vec::new();
    let followed = async {
        let mut follows: FuturesUnordered<_> = ids
            .iter()
            .map(|id| {
                Follow::new(&client.api, id).run(|news| match news {
                    News::Job(job) => live.borrow_mut().show(job),
                    News::Lost => live.borrow_mut().lost(id),
                })
            })
            .collect();
        while let Some(job) = follows.next().await {
            ended.push(job?);
        }
        Ok(())
    };
    let interrupted = tokio::signal::ctrl_c();
    let outcome = tokio::select! {
        followed = followed => followed.map(|()| None),
        () = sleep(timeout) => Ok(Some(Exit::TimedOut)),
        _ = interrupted => Ok(Some(Exit::Interrupted)),
    };
    live.borrow_mut().clear();
    let stopped = outcome?;
    report(client, &ended, show);
    if let Some(exit) = stopped {
        say_what_goes_on(ids, &ended, exit);
    }
    let worst = ended.iter().map(|job| aim.exit(&job.view)).max().unwrap_or(Exit::Succeeded);
    Ok(stopped.unwrap_or(worst))
}

async fn sleep(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

fn report(client: &Client, ended: &[Item<Job>], show: Show) {
    let now = Timestamp::now();
    for job in ended {
        let style = job.view.tone().style();
        match (client.output.is_for_people(), show) {
            (true, _) => console::result(format_args!(
                "{}  {}  {}",
                job.view.id,
                job.view.kind,
                style.apply_to(job.view.ending(now))
            )),
            // Every change was printed, the last one too.
            (false, Show::Changes) if !client.output.quiet => {}
            (false, _) => client.output.done(job, ""),
        }
    }
}

fn say_what_goes_on(ids: &[String], ended: &[Item<Job>], exit: Exit) {
    let open: Vec<_> =
        ids.iter().filter(|id| !ended.iter().any(|job| job.view.id == **id)).map(String::as_str).collect();
    let why = if exit == Exit::TimedOut { "Waited long enough" } else { "Stopped watching" };
    let what = if open.len() == 1 { "the job goes on" } else { "the jobs go on" };
    console::say(format_args!("{why}; {what}: streamspace jobs watch {}", open.join(" ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str) -> Job {
        Job { state: state.to_owned(), terminal: true, ..Job::default() }
    }

    #[test]
    fn the_end_of_a_job_decides_the_exit_code() {
        let of = |aim: Aim, state: &str| aim.exit(&job(state));
        assert_eq!(of(Aim::Success, "succeeded"), Exit::Succeeded);
        assert_eq!(of(Aim::Success, "failed"), Exit::JobFailed);
        assert_eq!(of(Aim::Success, "cancelled"), Exit::JobCancelled);
        assert_eq!(of(Aim::End, "cancelled"), Exit::Succeeded);
        assert_eq!(of(Aim::End, "succeeded"), Exit::Succeeded);
        assert_eq!(of(Aim::End, "failed"), Exit::JobFailed);
    }

    #[test]
    fn a_failure_outweighs_a_cancelled_job() {
        let worst = ["succeeded", "failed", "cancelled"].map(|state| Aim::Success.exit(&job(state)));
        assert_eq!(worst.into_iter().max(), Some(Exit::JobFailed));
    }
}
