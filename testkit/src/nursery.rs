//! The thread that starts all processes.
//!
//! A parent-death signal is sent when the *thread* that started the child ends, and a test's thread
//! ends with its test, while a shared server must not. This thread never ends before the process.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

type Order = (Command, Sender<io::Result<Child>>);

pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static THREAD: OnceLock<Sender<Order>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::Builder::new()
            .name("nursery".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        orders
    });
    let (answer, child) = channel();
    thread.send((command, answer)).expect("the nursery never ends");
    child.recv().expect("the nursery answers")
}
