//! A server that stands before a registry and changes what goes through it, as other registries and proxies do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::Registry;

/// What is changed.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    /// The answer in place of 404 to a question for a manifest or for tags: the JSON of the error.
    pub(crate) absent: Option<&'static str>,
    /// Of several headers `Accept` only the one of this number is passed on.
    pub(crate) accept: Option<usize>,
}

/// Passes one request for each connection on.
pub(crate) struct Front {
    pub(crate) address: String,
    pub(crate) changes: Arc<Mutex<Changes>>,
}

impl Front {
    pub(crate) fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let changes = Arc::new(Mutex::new(Changes::default()));
        let (to, shared) = (registry.address.clone(), Arc::clone(&changes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (to, changes) = (to.clone(), shared.lock().unwrap().clone());
                // A client that goes away is no failure.
                std::thread::spawn(move || pass_on(client, &to, &changes));
            }
        });
        Self { address, changes }
    }
}

fn pass_on(mut client: TcpStream, to: &str, changes: &Changes) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte)? == 1 {
        head.push(byte[0]);
        // A client that tries TLS first learns at once that there is none.
        if !head[0].is_ascii_uppercase() {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().lines();
    let request = lines.next().unwrap_or_default();
    let is = |line: &str, name: &str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
    let (accept, others): (Vec<_>, Vec<_>) = lines.partition(|line| is(line, "accept"));
    let accept = match changes.accept {
        Some(number) => accept.get(number).into_iter().copied().collect(),
        None => accept,
    };
    let kept = others.into_iter().filter(|line| !is(line, "connection")).chain(accept).chain(["Connection: close"]);
    let lines: Vec<_> = [request].into_iter().chain(kept).collect();
    let mut registry = TcpStream::connect(to)?;
    registry.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes())?;
    let (mut body, mut into) = (client.try_clone()?, registry.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut body, &mut into));
    let mut answer = Vec::new();
    registry.read_to_end(&mut answer)?;
    let is_question = request.contains("/manifests/") || request.contains("/tags/list");
    if let Some(error) = changes.absent.filter(|_| is_question && answer.starts_with(b"HTTP/1.1 404")) {
        let length = error.len();
        answer = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{error}"
        )
        .into_bytes();
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}
