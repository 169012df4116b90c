//! Server-sent events, read from chunks that end anywhere.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Empty: `message`.
    pub name: String,
    pub data: String,
}

/// Takes bytes as they come and gives events as they are complete.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// The line ended with CR at the end of a chunk: an LF that follows belongs to it.
    after_return: bool,
    started: bool,
    last_id: Option<String>,
}

/// No event of ours comes near it; what does is not an event stream.
const LONGEST: usize = 4 << 20;

/// The stream is not one of events.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the stream holds an event of more than {} MiB", LONGEST >> 20)]
pub struct TooLong;

impl Parser {
    /// From where to go on, for `Last-Event-ID`.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if follows_return => {}
                b'\n' => self.end_line(&mut events),
                b'\r' => {
                    self.after_return = true;
                    self.end_line(&mut events);
                }
                byte => self.line.push(byte),
            }
            if self.line.len() + self.event.data.len() > LONGEST {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let bytes = std::mem::take(&mut self.line);
        let mut line: &[u8] = &bytes;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event(events);
            return;
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            // Comments keep the connection alive; `retry` is for clients that never give up.
            _ => {}
        }
    }

    /// An event without data is none.
    fn end_event(&mut self, events: &mut Vec<Event>) {
        let event = std::mem::take(&mut self.event);
        if std::mem::take(&mut self.has_data) {
            events.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn fields_comments_and_every_line_end_are_understood() {
        let mut parser = Parser::default();
        let text = "\u{feff}: hello\nevent: job\ndata: {\"a\":1}\nid: 7\nretry: 10\n\n\
                    data\rdata:x\r\rid:\r\n\r\nevent: nothing\n\ndata: unfinished";
        let events = parser.push(text.as_bytes()).expect("short");
        assert_eq!(events, [event("job", "{\"a\":1}"), event("", "\nx")]);
        assert_eq!(parser.last_id(), Some(""));
    }

    #[test]
    fn what_is_no_event_stream_is_given_up() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; LONGEST + 1]), Err(TooLong));
    }

    proptest! {
        #[test]
        fn chunks_may_end_anywhere(at in proptest::collection::vec(0_usize..64, 0..5)) {
            let text = "id: 1\r\nevent: job\r\ndata: eins äöü\r\ndata: zwei\r\n\r\n: keep\rdata: drei\r\r";
            let mut cuts: Vec<usize> = at.into_iter().map(|at| at.min(text.len())).collect();
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let mut events = Vec::new();
            let mut start = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                events.extend(parser.push(&text.as_bytes()[start..cut]).expect("short"));
                start = cut;
            }
            prop_assert_eq!(events, [event("job", "eins äöü\nzwei"), event("", "drei")]);
            prop_assert_eq!(parser.last_id(), Some("1"));
        }
    }
}
