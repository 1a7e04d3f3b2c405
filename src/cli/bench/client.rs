//! A connection that publishes: requests are made beforehand and answers are read no
//! further than needed, because what the sender costs is measured with the node's work.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request with events, ready to be sent to `address`.
pub(super) fn request(address: SocketAddr, events: &str) -> Vec<u8> {
    let length = events.len();
    format!(
        "POST /events HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {length}\r\n\r\n{events}"
    )
    .into_bytes()
}

/// A kept-alive connection.
pub(super) struct Client {
    stream: TcpStream,
    /// What came of the answer so far.
    answer: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(64 * 1024),
        })
    }

    /// Sends a request; the answer's status and body.
    pub(super) async fn send(&mut self, request: &[u8]) -> io::Result<(u16, &str)> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let (status, from, to) = loop {
            if let Some((status, from, length)) = head(&self.answer)
                && self.answer.len() >= from + length
            {
                break (status, from, from + length);
            }
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let body = std::str::from_utf8(&self.answer[from..to]);
        Ok((status, body.map_err(io::Error::other)?))
    }
}

/// The status of an answer, where its body begins, and how long that is; `None` while
/// the head has not come whole.
fn head(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let its = name.eq_ignore_ascii_case("content-length");
        its.then(|| value.trim().parse().ok())?
    });
    Some((status, end + 4, length?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_come() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(head(answer), Some((202, answer.len() - 2, 2)));
        assert_eq!(head(&answer[..answer.len() - 4]), None);
    }
}
