//! The way out of a connection, frame by frame.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;
use tokio::sync::mpsc::UnboundedReceiver;

/// The way out of a connection. Every call may be cut short: what was written is remembered, so that
/// no frame is left half.
pub(super) struct Outgoing<'s> {
    pub(super) queued: UnboundedReceiver<Vec<u8>>,
    pub(super) writer: WriteHalf<'s>,
    pub(super) begun: Vec<u8>,
    pub(super) written: usize,
}

impl Outgoing<'_> {
    /// Waits for what is to be written next; its length.
    pub(super) async fn next(&mut self) -> Option<usize> {
        self.begun = self.queued.recv().await?;
        self.written = 0;
        Some(self.begun.len())
    }

    pub(super) async fn write_begun(&mut self) -> io::Result<()> {
        while self.written < self.begun.len() {
            match self.writer.write(&self.begun[self.written..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.written += count,
            }
        }
        Ok(())
    }

    /// What waits when the connection is closed: a goodbye, for one.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.queued.close();
        self.write_begun().await?;
        while self.next().await.is_some() {
            self.write_begun().await?;
        }
        self.writer.shutdown().await
    }
}
