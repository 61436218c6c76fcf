//! A connection that loses answers: it passes requests on, and when it is told to, hangs up once the server has answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Which answer to lose: that to the next request whose first line contains this.
#[derive(Default)]
struct ToLose(Mutex<Option<&'static str>>);

impl ToLose {
    fn set(&self, target: Option<&'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    fn get(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, request: &[u8]) -> bool {
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        self.get().is_some_and(|target| line.windows(target.len()).any(|part| part == target.as_bytes()))
    }
}

/// The way to a server, in front of it.
pub(super) struct Lossy {
    address: SocketAddr,
    to_lose: Arc<ToLose>,
    task: JoinHandle<()>,
}

impl Lossy {
    /// Listens on a free port of loopback.
    pub(super) async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let to_lose = Arc::new(ToLose::default());
        let shared = Arc::clone(&to_lose);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // Either side may hang up at any time; that is what this is for.
                    let _ended = pass(client, server, &shared).await;
                });
            }
        });
        Ok(Self { address, to_lose, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The answer to the next request for `target` is lost. The server has committed by then: it answers only afterwards.
    pub(super) fn lose_next(&self, target: &'static str) {
        self.to_lose.set(Some(target));
    }

    /// Whether an answer was lost as asked.
    pub(super) fn has_lost(&self) -> bool {
        self.to_lose.get().is_none()
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, to_lose: &ToLose) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut asked, mut answered) = (vec![0; 8192], vec![0; 8192]);
    let mut is_wanted = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                length => {
                    is_wanted = is_wanted || to_lose.wants(&asked[..length]);
                    server.write_all(&asked[..length]).await?;
                }
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                _ if is_wanted => {
                    to_lose.set(None);
                    return Ok(());
                }
                length => client.write_all(&answered[..length]).await?,
            },
        }
    }
}
