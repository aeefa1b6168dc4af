//! One connection's socket: writes that do not wait for ever, and whether the other side has gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How often a half-closed connection is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A stream whose writes fail when the other side takes nothing for a while.
pub struct Patient {
    stream: Arc<TcpStream>,
    limit: Duration,
    /// Runs while a write waits.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Over a stream that others may watch.
    pub fn new(stream: Arc<TcpStream>, limit: Duration) -> Patient {
        Patient { stream, limit, clock: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.clock = None;
            return wrote;
        }
        let limit = self.limit;
        let clock =
            self.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match clock.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client took nothing for {} s", limit.as_secs_f64()),
            ))),
        }
    }

    /// Tries to write until it is done or has to wait.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let wrote = loop {
            match self.stream.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
            match attempt(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break Poll::Ready(done),
            }
        };
        self.watch(context, wrote)
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(n) => {
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

/// Ends when the client has gone, while a request of it waits for its answer. A client that closed its
/// sending side only (as `nc -N` and some libraries do) looks the same until something is sent to it, so it is
/// sent an interim response, which every client of HTTP/1.1 skips (RFC 9110, 15.2); if nobody is there, the
/// system answers that the connection is no more.
pub async fn gone(stream: &TcpStream, interim: bool) -> io::Error {
    loop {
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => break,
            // A request that was sent ahead, or a body that is being read.
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(error) => return error,
        }
    }
    if interim
        && let Err(error) = stream.try_write(b"HTTP/1.1 100 Continue\r\n\r\n")
        && error.kind() != io::ErrorKind::WouldBlock
    {
        return error;
    }
    loop {
        match stream.take_error() {
            Ok(None) => tokio::time::sleep(LOOK).await,
            Ok(Some(error)) | Err(error) => return error,
        }
    }
}
