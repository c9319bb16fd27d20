//! Separates a guest command's output from its exit status.
//!
//! In exec mode the guest writes the command's output to its second serial port as it is, then
//! `\0ring3-exit:N\n`, then it powers off. The output may contain the same bytes: they are the
//! trailer only where the stream ends with them, so a trailer is held back until more bytes or the
//! end show which it was.

const MARK: &[u8] = b"\0ring3-exit:";

/// The receiving end of a guest command's output.
#[derive(Debug, Default)]
pub struct ExecOutput {
    /// What may yet be the trailer: always a prefix of one, or a whole one.
    held: Vec<u8>,
}

fn parse(trailer: &[u8]) -> Option<u8> {
    let digits = trailer.strip_prefix(MARK)?.strip_suffix(b"\n")?;
    str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?.parse().ok()
}

fn begins_trailer(bytes: &[u8]) -> bool {
    match bytes.split_at_checked(MARK.len()) {
        None => MARK.starts_with(bytes),
        Some((mark, digits)) => {
            let number = digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit);
            mark == MARK && (number || parse(bytes).is_some())
        }
    }
}

impl ExecOutput {
    /// Takes the next bytes from the guest and appends to `output` those that are certainly the
    /// command's.
    pub fn push(&mut self, mut bytes: &[u8], output: &mut Vec<u8>) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.held.is_empty() {
                let n = bytes.iter().position(|&byte| byte == MARK[0]).unwrap_or(bytes.len());
                output.extend_from_slice(&bytes[..n]);
                self.held.extend(bytes.get(n));
                bytes = bytes.get(n + 1..).unwrap_or_default();
                continue;
            }
            self.held.push(byte);
            if begins_trailer(&self.held) {
                bytes = rest;
            } else {
                // Only the first byte of a trailer is NUL, so none can begin within what was held.
                self.held.pop();
                output.append(&mut self.held);
            }
        }
    }

    /// The command's exit status, once the stream so far ends with the trailer.
    #[must_use]
    pub fn status(&self) -> Option<u8> {
        parse(&self.held)
    }

    /// Ends the stream: appends what was held back to `output` if it was no trailer. Returns the
    /// exit status, or `None` when the guest stopped before the command had ended.
    pub fn finish(self, output: &mut Vec<u8>) -> Option<u8> {
        let status = self.status();
        if status.is_none() {
            output.extend_from_slice(&self.held);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&[u8]]) -> (Vec<u8>, Option<u8>) {
        let (mut parser, mut output) = (ExecOutput::default(), Vec::new());
        for chunk in chunks {
            parser.push(chunk, &mut output);
        }
        let status = parser.finish(&mut output);
        (output, status)
    }

    /// The stream, the payload in it, the status.
    const CASES: &[(&[u8], &[u8], Option<u8>)] = &[
        (b"", b"", None),
        (b"\0ring3-exit:0\n", b"", Some(0)),
        (b"hi\n\0ring3-exit:255\n", b"hi\n", Some(255)),
        (b"\0\0ring3-exit:7\n", b"\0", Some(7)),
        (b"\0ring3-\0ring3-exit:12\n", b"\0ring3-", Some(12)),
        (b"\0ring3-exit:1\n\0ring3-exit:2\n", b"\0ring3-exit:1\n", Some(2)),
        (b"\0ring3-exit:1\nx", b"\0ring3-exit:1\nx", None),
        (b"a\0ring3-exit:3", b"a\0ring3-exit:3", None),
        (b"\0ring3-exit:256\n", b"\0ring3-exit:256\n", None),
        (b"\0ring3-exit:0001\n", b"\0ring3-exit:0001\n", None),
        (b"\0ring3-exit:\n", b"\0ring3-exit:\n", None),
        (b"\0ring3-exit:+1\n", b"\0ring3-exit:+1\n", None),
        (b"\xff\xfe\0\0\0", b"\xff\xfe\0\0\0", None),
    ];

    #[test]
    fn a_stream_split_anywhere_means_the_same() {
        for &(stream, payload, status) in CASES {
            for at in 0..=stream.len() {
                let (head, tail) = stream.split_at(at);
                assert_eq!(
                    run(&[head, tail]),
                    (payload.to_vec(), status),
                    "{stream:?} split at {at}"
                );
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(run(&bytes), (payload.to_vec(), status), "{stream:?} by bytes");
        }
    }

    #[test]
    fn output_is_not_held_back_needlessly() {
        let (mut parser, mut output) = (ExecOutput::default(), Vec::new());
        parser.push(b"prompt> \0ring3-exit:4", &mut output);
        assert_eq!((&output[..], parser.status()), (&b"prompt> "[..], None));
        parser.push(b"\n", &mut output);
        assert_eq!((&output[..], parser.status()), (&b"prompt> "[..], Some(4)));
    }
}
