//! Fetching from a server that does everything wrong that servers do.

use super::*;
use crate::error::chain;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// What it should.
    Well,
    /// Breaks the connection after so many bytes of the body.
    Cut(usize),
    /// Sends nothing more after so many bytes of the body, and keeps the connection.
    Stall(usize),
    /// Gives the whole file whatever is asked.
    Whole,
    /// The same without saying how long it is, in a coding of its own.
    Chunked,
    /// Another part than was asked for.
    Elsewhere,
    /// Only this status.
    Status(&'static str),
    /// Another file in the place of this one.
    Replaced,
    /// Closes the connection at once.
    Hangup,
}

/// A web server with one file.
pub(crate) struct FileServer {
    pub(crate) url: Url,
    /// `Range` and `If-Range` of every request.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    _connections: JoinSet<()>,
}

impl FileServer {
    /// Answers each request as `script` says, and those after its end well.
    pub(crate) async fn start(content: Vec<u8>, script: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap()).parse().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (requests.clone(), script.to_vec());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut script = script.into_iter();
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = script.next().unwrap_or(Answer::Well);
                open.spawn(serve(stream, answer, content.clone(), seen.clone()));
            }
        });
        Self { url, requests, _connections: connections }
    }
}

/// One request to a connection.
async fn serve(mut stream: TcpStream, answer: Answer, content: Vec<u8>, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let field = |name: &str| {
        let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.map(|line| line[name.len()..].trim().to_owned())
    };
    let range = field("range:");
    seen.lock().unwrap().push(format!(
        "{} {}",
        range.as_deref().unwrap_or("-"),
        field("if-range:").unwrap_or_default()
    ));
    let length = content.len();
    let asked = range.map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (first.parse::<usize>().unwrap(), last.parse().unwrap_or(length - 1).min(length - 1))
    });
    let etag = if matches!(answer, Answer::Replaced) { "\"2\"" } else { "\"1\"" };
    let common = format!("ETag: {etag}\r\nConnection: close\r\n");
    let whole = format!("HTTP/1.1 200 OK\r\n{common}Content-Length: {length}\r\n\r\n");
    let (head, body) = match (answer, asked) {
        (Answer::Hangup, _) => return,
        (Answer::Status(status), _) => (format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{common}\r\n"), vec![]),
        (Answer::Chunked, _) => {
            let head = format!("HTTP/1.1 200 OK\r\n{common}Transfer-Encoding: chunked\r\n\r\n");
            let body =
                content.chunks(100).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            (head, [body.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat())
        }
        // If-Range makes a server that has another file give all of it.
        (Answer::Whole | Answer::Replaced, _) | (_, None) => (whole, content),
        (_, Some((first, last))) => {
            let first = if matches!(answer, Answer::Elsewhere) { first + 1 } else { first };
            let length_of_part = last + 1 - first;
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\n{common}Content-Range: bytes {first}-{last}/{length}\r\n\
                 Content-Length: {length_of_part}\r\n\r\n"
            );
            (head, content[first..=last].to_vec())
        }
    };
    let _ = stream.write_all(head.as_bytes()).await;
    let part = match answer {
        Answer::Cut(bytes) | Answer::Stall(bytes) => &body[..bytes.min(body.len())],
        _ => &body[..],
    };
    let _ = stream.write_all(part).await;
    if let Answer::Stall(_) = answer {
        // Until the other side has had enough.
        let _ = stream.read_u8().await;
    }
}

/// Little of it.
pub(crate) const PATIENCE: Patience = Patience {
    stall: Duration::from_millis(300),
    pause: Duration::from_millis(1),
    give_up: Duration::from_millis(900),
};

pub(crate) fn client() -> Client {
    crate::tls::install_provider();
    Client::builder().no_proxy().build().unwrap()
}

fn content() -> Vec<u8> {
    (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// Downloads `content()` from a server with this script.
async fn download(script: &[Answer]) -> (Result<Fetched, FetchError>, Vec<u8>, Vec<String>) {
    let server = FileServer::start(content(), script).await;
    let (send, mut receive) = mpsc::channel(4);
    let mut source = Source::new(client(), server.url.clone(), PATIENCE);
    let take = async {
        let mut bytes = Vec::new();
        let mut ended = false;
        while let Some(piece) = receive.recv().await {
            match piece {
                Piece::Bytes(piece) => bytes.extend_from_slice(&piece),
                Piece::End => ended = true,
            }
        }
        (bytes, ended)
    };
    let fetch = async move {
        let fetched = source.download(send).await;
        drop(source);
        fetched
    };
    let (fetched, (bytes, ended)) = tokio::join!(fetch, take);
    assert_eq!(fetched.is_ok(), ended);
    let requests = server.requests.lock().unwrap().clone();
    (fetched, bytes, requests)
}

#[tokio::test]
async fn a_transfer_that_breaks_goes_on_where_it_stopped() {
    use Answer::{Chunked, Cut, Hangup, Stall, Status, Well, Whole};
    for (script, requests) in [
        (&[Well][..], &["- "][..]),
        (&[Cut(0)], &["- ", "- "]),
        (&[Cut(150_000)], &["- ", "bytes=150000- \"1\""]),
        (
            &[Cut(150_000), Cut(100_000), Cut(1)],
            &["- ", "bytes=150000- \"1\"", "bytes=250000- \"1\"", "bytes=250001- \"1\""],
        ),
        (&[Cut(150_000), Whole], &["- ", "bytes=150000- \"1\""]),
        (&[Stall(150_000)], &["- ", "bytes=150000- \"1\""]),
        (
            &[Hangup, Status("503 Service Unavailable"), Cut(150_000), Hangup, Status("500 Oops")],
            &["- ", "- ", "- ", "bytes=150000- \"1\"", "bytes=150000- \"1\"", "bytes=150000- \"1\""],
        ),
        (&[Chunked], &["- "]),
        (&[Cut(399_999), Answer::Elsewhere], &["- ", "bytes=399999- \"1\"", "bytes=399999- \"1\""]),
    ] {
        let (fetched, bytes, seen) = download(script).await;
        let fetched = fetched.unwrap_or_else(|error| panic!("{script:?}: {}", chain(&error)));
        assert!(bytes == content(), "{script:?}");
        assert_eq!(fetched, Fetched { bytes: 400_000, sha256: Sha256::digest(content()).into() });
        assert_eq!(seen, requests, "{script:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_mended_is_an_error() {
    use Answer::{Cut, Hangup, Replaced, Stall, Status};
    for (script, word) in [
        (&[Status("404 Not Found")][..], "404"),
        (&[Status("301 Moved Permanently")], "301"),
        (&[Cut(1000), Replaced], "no longer the file"),
        (&[Cut(1000), Answer::Chunked], "no longer the file"),
        (&[Cut(1000), Status("416 Range Not Satisfiable")], "no longer the file"),
        (&[Hangup; 2000], "the connection failed"),
        (&[Cut(0); 2000], "without a byte"),
        (&[Stall(0); 10], "nothing came for"),
        (&[Status("503 Service Unavailable"); 2000], "the server answers 503"),
    ] {
        let (fetched, _, _) = download(script).await;
        let error = chain(&fetched.unwrap_err());
        assert!(error.contains(word), "{script:?}: {error}");
    }
}

#[tokio::test]
async fn parts_are_read_and_servers_that_cannot_give_them_are_named() {
    use Answer::{Cut, Well, Whole};
    let content = content();
    for (script, range) in [
        (&[Well][..], 0..100),
        (&[Well], 399_990..400_000),
        (&[Well], 399_990..400_100),
        (&[Cut(10), Cut(20)], 5..1005),
        (&[Whole], 0..100),
    ] {
        let server = FileServer::start(content.clone(), script).await;
        let mut source = Source::new(client(), server.url.clone(), PATIENCE);
        let part = source.part(range.clone()).await.unwrap();
        assert!(part == content[range.start as usize..content.len().min(range.end as usize)], "{script:?}");
        assert_eq!(source.length(), Some(400_000));
    }
    let server = FileServer::start(content, &[Whole]).await;
    let mut source = Source::new(client(), server.url.clone(), PATIENCE);
    assert!(matches!(source.part(5..10).await, Err(FetchError::NoRange { .. })));
}
