//! A TCP proxy that misbehaves when it is told to: it cuts connections, leaves
//! them half open, is slow or thin.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the proxy treats what passes.
#[derive(Default)]
struct Mood {
    /// New connections are closed at once.
    refuse: AtomicBool,
    /// Nothing passes, and nobody is told.
    silent: AtomicBool,
    /// Each piece waits this many milliseconds.
    delay_ms: AtomicU64,
    /// Bytes per second in each direction; 0: as fast as it goes.
    rate: AtomicU64,
    stop: AtomicBool,
}

/// A proxy in front of a server.
pub struct Proxy {
    address: SocketAddr,
    mood: Arc<Mood>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Starts one in front of `server`.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            mood: Arc::default(),
            open: Arc::default(),
        };
        let (mood, open) = (Arc::clone(&proxy.mood), Arc::clone(&proxy.open));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if mood.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if mood.refuse.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                join(&client, &server, &mood);
                open.lock().expect("a lock").extend([client, server]);
            }
        });
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.open.lock().expect("a lock").drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Refuses new connections, or takes them again.
    pub fn refuse(&self, yes: bool) {
        self.mood.refuse.store(yes, Ordering::Relaxed);
    }

    /// Lets nothing pass and tells nobody, or lets it pass again.
    pub fn silence(&self, yes: bool) {
        self.mood.silent.store(yes, Ordering::Relaxed);
    }

    /// Holds each piece back.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("milliseconds");
        self.mood.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// Lets so many bytes pass per second; 0: all.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.mood.rate.store(bytes_per_second, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mood.stop.store(true, Ordering::Relaxed);
        self.cut();
        TcpStream::connect(self.address).ok();
    }
}

fn join(client: &TcpStream, server: &TcpStream, mood: &Arc<Mood>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    for (from, to) in [(client, server), (server, client)] {
        from.set_nodelay(true).ok();
        let (from, to, mood) = (clone(from), clone(to), Arc::clone(mood));
        std::thread::spawn(move || pass(from, to, &mood));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mood: &Mood) {
    let mut piece = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        while mood.silent.load(Ordering::Relaxed) && !mood.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let delay = mood.delay_ms.load(Ordering::Relaxed);
        let rate = mood.rate.load(Ordering::Relaxed);
        let thin = (length as u64 * 1_000).checked_div(rate).unwrap_or(0);
        if delay + thin > 0 {
            std::thread::sleep(Duration::from_millis(delay + thin));
        }
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}
