//! Frames on a connection: four bytes of length, then so many bytes.

use std::io::{self, ErrorKind, Read, Write};

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The bytes behind the length.
    Whole(Vec<u8>),
    /// These bytes are no frame, so nothing that follows is: TLS, or no Kafka at all.
    Foreign(Vec<u8>),
    /// The other side sends no more.
    End,
}

/// The longest frame that is believed; brokers take 100 MiB by default (`socket.request.max.bytes`).
const LONGEST: i32 = 128 << 20;

/// Reads the next frame. One that is cut off in its midst is passed over, as it would be by who it was meant for.
pub(super) fn read(from: &mut impl Read) -> io::Result<Frame> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Frame::End),
        other => other?,
    }
    let count = i32::from_be_bytes(length);
    if !(4..=LONGEST).contains(&count) {
        return Ok(Frame::Foreign(length.to_vec()));
    }
    // Grows with what comes, not with what was announced.
    let mut bytes = Vec::new();
    let read = from.take(count as u64).read_to_end(&mut bytes)?;
    Ok(if read == count as usize { Frame::Whole(bytes) } else { Frame::End })
}

/// Writes a frame.
pub(super) fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    // In one piece: a length that travels alone costs a packet.
    let framed = [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    to.write_all(&framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut stream = Vec::new();
        for bytes in [&b"abcd"[..], b"efghij"] {
            write(&mut stream, bytes).unwrap();
        }
        let mut stream = &stream[..];
        assert_eq!(read(&mut stream).unwrap(), Frame::Whole(b"abcd".into()));
        assert_eq!(read(&mut stream).unwrap(), Frame::Whole(b"efghij".into()));
        assert_eq!(read(&mut stream).unwrap(), Frame::End);
    }

    #[test]
    fn what_is_no_frame_is_told_and_what_is_cut_off_is_the_end() {
        let check = |mut bytes: &[u8], frame| assert_eq!(read(&mut bytes).unwrap(), frame, "{bytes:?}");
        check(&[0x16, 3, 1, 0, 9], Frame::Foreign(vec![0x16, 3, 1, 0]));
        check(&[0, 0, 0, 3, 1, 2, 3], Frame::Foreign(vec![0, 0, 0, 3]));
        check(&[0xff; 8], Frame::Foreign(vec![0xff; 4]));
        check(&[0, 0, 0, 9, 1, 2, 3], Frame::End);
        check(&[0, 0], Frame::End);
    }
}
