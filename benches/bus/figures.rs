//! What the process and its runtime are, and what it has used so far.

/// Two worker threads, as on the smallest machine.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// CPU time of this process so far, in seconds.
pub fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|f| f.parse::<f64>().unwrap_or(0.0))
        .sum();
    ticks / 100.0
}

/// Bytes handed to `write` so far.
pub fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("procfs");
    let line = io.lines().find_map(|l| l.strip_prefix("wchar: "));
    line.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// A line of `/proc/self/status`, in MiB.
pub fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}
