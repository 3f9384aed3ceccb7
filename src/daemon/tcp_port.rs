//! The TCP port of the daemon: opens the port, now or as soon as the port is free.
//!
//! In: an address, `HOST:PORT`. Out: a listener, or a server that accepts clients. Thread: main;
//! the name lookup runs on the resolver's threads.

use crate::admin::pages::Pages;
use crate::aws::transport::Resolver;
use crate::base::address;
use crate::base::http_server::Server;
use crate::base::panics;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{error, info};

/// Pause between two attempts to open a TCP port that another program uses.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Size of the kernel's buffers of a connection for receiving and for sending, in bytes, without
/// the kernel's overhead, which doubles it. The kernel's own defaults grow to megabytes for a
/// connection whose data is not read, outside of the memory of the TCP port.
const SOCKET_BUFFER_BYTES: usize = 32 * 1024;

/// Opens the TCP port. Returns the listener and its address. The address has the port number that
/// the kernel chose if `address` has port 0.
///
/// # Errors
///
/// Fails if the address is not `HOST:PORT` (`InvalidInput`), the host has no address, or the port
/// cannot be opened.
pub(super) async fn listen(
    address: &str,
    resolver: &Resolver,
) -> io::Result<(TcpListener, SocketAddr)> {
    let (listener, address) = bind(address, resolver).await?;
    info!("Listening on TCP {address}");
    Ok((TcpListener::from_std(listener)?, address))
}

/// Like [`listen`], without a log line.
///
/// # Errors
///
/// Fails like [`listen`].
#[cfg(feature = "sandbox")]
pub(super) async fn open(
    address: &str,
    resolver: &Resolver,
) -> io::Result<(TcpListener, SocketAddr)> {
    let (listener, address) = bind(address, resolver).await?;
    Ok((TcpListener::from_std(listener)?, address))
}

/// Like [`listen`], without a log line, and for a server on another thread.
///
/// # Errors
///
/// Fails like [`listen`].
pub(super) async fn bind(
    address: &str,
    resolver: &Resolver,
) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    // The lookup runs on a thread of the resolver: a name server that does not answer must not
    // block the main thread.
    let text = address.to_owned();
    let addresses = resolver.run(move || address::resolve(&text)).await?;
    let listener = address::open_first(&addresses, |address| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        // Connections inherit these from the listener.
        let socket = SockRef::from(&listener);
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        Ok(listener)
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Opens the TCP port as soon as the port is free, and lets `server` serve it. Segments do not wait
/// for the port. `tried` becomes true after the first attempt, even if the attempt failed.
pub(super) async fn serve_when_free(
    address: String,
    server: Arc<Server<Pages>>,
    resolver: Resolver,
    tried: watch::Sender<bool>,
) {
    let mut listening = listen(&address, &resolver).await;
    if let Err(error) = &listening {
        error!(
            "TCP {address} cannot be opened: {error}. Segments are received and sent without the \
             TCP port; trying again every {} s",
            RETRY_PAUSE.as_secs()
        );
    }
    tried.send_replace(true);
    panics::inject("serve");
    loop {
        if let Ok((listener, _)) = listening {
            return server.serve(Arc::new(listener)).await;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        listening = listen(&address, &resolver).await;
    }
}
