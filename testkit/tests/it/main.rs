//! The kit's own tests: that what it starts can be killed, and dies with us.

mod clocks;
mod processes;
mod proxies;
mod servers;
