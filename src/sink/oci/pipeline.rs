//! From the entries of layers to compressed blobs: one thread reads, several compress, one writes, all in order.
//! It must never let the number of threads show in a blob: what is compressed apart is cut at fixed places.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::Builder;

use anyhow::{Context, anyhow};
use flate2::{Compress, Crc, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use super::blobs::Blobs;
use super::entries::Output;
use crate::interrupt::Interrupt;
use crate::oci::{Descriptor, Digest};

/// How a layer is compressed. The levels are zlib's and zstd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952; every engine reads it.
    Gzip(u32),
    /// RFC 8878.
    Zstd(i32),
    /// Not at all.
    None,
}

/// Reading and hashing keeps about so many threads busy; more of them would only cost memory.
const MOST_THREADS: usize = 32;
/// Deflate's window: what a part may refer to of the part before it.
const WINDOW: usize = 32 * 1024;
/// A gzip member without name and time, made on no particular system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

impl Compression {
    /// Media type of a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Compression::Gzip(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }

    /// Bytes that are compressed at once. What zstd compresses is a frame of its own, in which nothing refers to
    /// another frame; parts of gzip refer to the one before.
    fn part(self) -> usize {
        match self {
            Compression::Gzip(_) | Compression::None => 1 << 20,
            Compression::Zstd(_) => 4 << 20,
        }
    }
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) blob: Descriptor,
    pub(super) diff_id: Digest,
}

/// A part of a layer to be compressed, and where the answer goes.
struct Job {
    bytes: Vec<u8>,
    /// The end of the part before it.
    dictionary: Vec<u8>,
    is_last: bool,
    reply: SyncSender<anyhow::Result<Vec<u8>>>,
}

/// What the writing thread gets, in order.
enum Piece {
    /// A part that will be compressed.
    Part(Receiver<anyhow::Result<Vec<u8>>>),
    /// The end of a layer: hash, CRC-32 and size of its uncompressed bytes.
    End { diff_id: Digest, crc: u32, size: u64 },
}

/// The uncompressed bytes of one layer, on their way to the threads that compress.
pub(super) struct Layer<'a> {
    compression: Compression,
    part: Vec<u8>,
    dictionary: Vec<u8>,
    hash: Sha256,
    crc: Crc,
    size: u64,
    pieces: &'a SyncSender<Piece>,
    jobs: &'a mpsc::Sender<Job>,
}

/// The writing thread has failed, and says why itself.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody writes any more")
    }
}

impl std::error::Error for Gone {}

impl<'a> Layer<'a> {
    fn new(compression: Compression, pieces: &'a SyncSender<Piece>, jobs: &'a mpsc::Sender<Job>) -> Self {
        let part = Vec::with_capacity(compression.part());
        let (hash, crc) = (Sha256::new(), Crc::new());
        Self { compression, part, dictionary: Vec::new(), hash, crc, size: 0, pieces, jobs }
    }

    fn send(&mut self, is_last: bool) -> anyhow::Result<()> {
        let next = Vec::with_capacity(if is_last { 0 } else { self.compression.part() });
        let bytes = std::mem::replace(&mut self.part, next);
        self.hash.update(&bytes);
        self.size += bytes.len() as u64;
        let mut dictionary = Vec::new();
        if matches!(self.compression, Compression::Gzip(_)) {
            self.crc.update(&bytes);
            dictionary = std::mem::replace(&mut self.dictionary, bytes[bytes.len().saturating_sub(WINDOW)..].to_vec());
        }
        let (reply, answer) = sync_channel(1);
        // First where it waits until there is room: so memory has a bound.
        self.pieces.send(Piece::Part(answer)).map_err(|_| Gone)?;
        self.jobs.send(Job { bytes, dictionary, is_last, reply }).map_err(|_| Gone)?;
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.send(true)?;
        let diff_id = Digest::from_hash(&self.hash.finalize());
        let (crc, size) = (self.crc.sum(), self.size);
        Ok(self.pieces.send(Piece::End { diff_id, crc, size }).map_err(|_| Gone)?)
    }
}

impl Output for Layer<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        let part = self.compression.part();
        while !bytes.is_empty() {
            if self.part.len() == part {
                self.send(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(part - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }
}

/// What the writing thread has come to.
pub(super) enum Step {
    /// The layer of this number is written next.
    Before(usize),
    /// It was written.
    Done(usize, Box<Written>),
}

/// Writes layers into `blobs`, one after the other: `produce` is called with the number of each and writes its
/// entries, `on` with each step. Returns the first error of any thread.
pub(super) fn run(
    compression: Compression,
    threads: usize,
    layers: &[usize],
    blobs: &mut dyn Blobs,
    interrupt: &Interrupt,
    produce: impl FnMut(usize, &mut Layer<'_>) -> anyhow::Result<()> + Send,
    mut on: impl FnMut(Step, &mut dyn Blobs) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let threads = threads.clamp(1, MOST_THREADS);
    let (job_sender, jobs) = channel::<Job>();
    let jobs = Mutex::new(jobs);
    let (piece_sender, pieces) = sync_channel::<Piece>(2 * threads + 4);
    let work = || {
        let mut compressor = Compressor::new(compression);
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(mut job) = job else { return };
            let answer = compressor.as_mut().map_err(|error| anyhow!("{error:#}")).and_then(|c| c.part(&mut job));
            // The writing thread may have failed meanwhile.
            let _ = job.reply.send(answer);
        }
    };
    let produce_all = move || {
        let mut produce = produce;
        for &layer in layers {
            let mut output = Layer::new(compression, &piece_sender, &job_sender);
            produce(layer, &mut output)?;
            output.end()?;
        }
        anyhow::Ok(())
    };
    std::thread::scope(|scope| {
        let no_thread = "cannot start a thread";
        // Where the system gives no more threads, fewer do the work.
        let spawn = |_| Builder::new().spawn_scoped(scope, work).ok();
        if (0..threads).map_while(spawn).count() == 0 {
            anyhow::bail!(no_thread);
        }
        let producer = Builder::new().spawn_scoped(scope, produce_all).context(no_thread)?;
        let written = (|| {
            for &layer in layers {
                on(Step::Before(layer), blobs)?;
                let Some(written) = write(&pieces, compression, blobs, interrupt)? else { break };
                on(Step::Done(layer, Box::new(written)), blobs)?;
            }
            anyhow::Ok(())
        })();
        // Whoever waits for room to send learns that nobody writes.
        drop(pieces);
        let produced = producer.join().map_err(|_| anyhow!("a thread ended in a panic"))?;
        match produced {
            Err(error) if !error.is::<Gone>() => written.and(Err(error)),
            _ => written,
        }
    })
}

/// Writes one layer. `None` where the producing thread has failed.
fn write(
    pieces: &Receiver<Piece>,
    compression: Compression,
    blobs: &mut dyn Blobs,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Written>> {
    let mut blob = Blob { hash: Sha256::new(), size: 0, blobs };
    blob.blobs.begin()?;
    if matches!(compression, Compression::Gzip(_)) {
        blob.write(&GZIP_HEADER)?;
    }
    loop {
        interrupt.check()?;
        match pieces.recv() {
            Ok(Piece::Part(answer)) => blob.write(&answer.recv().context("a thread ended without an answer")??)?,
            Ok(Piece::End { diff_id, crc, size }) => {
                if matches!(compression, Compression::Gzip(_)) {
                    blob.write(&crc.to_le_bytes())?;
                    // RFC 1952: the size modulo 2^32.
                    blob.write(&size.to_le_bytes()[..4])?;
                }
                let digest = Digest::from_hash(&blob.hash.finalize());
                blob.blobs.end(&digest)?;
                return Ok(Some(Written {
                    blob: Descriptor::new(compression.media_type(), digest, blob.size),
                    diff_id,
                }));
            }
            Err(_) => return Ok(None),
        }
    }
}

struct Blob<'a> {
    hash: Sha256,
    size: u64,
    blobs: &'a mut dyn Blobs,
}

impl Blob<'_> {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.blobs.write(bytes)
    }
}

/// What one thread compresses with.
enum Compressor {
    Gzip(u32),
    Zstd(zstd::bulk::Compressor<'static>),
    None,
}

impl Compressor {
    fn new(compression: Compression) -> anyhow::Result<Self> {
        Ok(match compression {
            Compression::Gzip(level) => Self::Gzip(level),
            Compression::Zstd(level) => {
                Self::Zstd(zstd::bulk::Compressor::new(level).context("cannot start to compress with zstd")?)
            }
            Compression::None => Self::None,
        })
    }

    fn part(&mut self, job: &mut Job) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Gzip(level) => deflate(*level, job),
            Self::Zstd(compressor) => compressor.compress(&job.bytes).context("cannot compress with zstd"),
            Self::None => Ok(std::mem::take(&mut job.bytes)),
        }
    }
}

/// One part of a deflate stream. All but the last end at a byte's border with an empty block, as pigz does.
///
/// Each with a state of its own: one of zlib-rs 0.6 that was reset and given a dictionary remembers enough of its
/// last part to choose other matches, so that the result would hang on which thread had compressed what.
fn deflate(level: u32, job: &Job) -> anyhow::Result<Vec<u8>> {
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !job.dictionary.is_empty() {
        compress.set_dictionary(&job.dictionary).context("cannot compress with gzip")?;
    }
    let flush = if job.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(job.bytes.len() / 2 + 1024);
    loop {
        let done = usize::try_from(compress.total_in())?;
        let status = compress.compress_vec(&job.bytes[done..], &mut out, flush).context("cannot compress with gzip")?;
        let is_read = usize::try_from(compress.total_in())? == job.bytes.len();
        // With room left over there is nothing left to say.
        if status == Status::StreamEnd || !job.is_last && is_read && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(out.capacity() / 2 + 1024);
    }
}

#[cfg(test)]
mod tests;
