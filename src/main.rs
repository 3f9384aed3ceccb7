//! The `xray` binary: parse, load, run, exit code.
fn main() {
    let mut config = xrayd::config::Config {
        udp_address: "127.0.0.1:0".into(),
        tcp_address: "127.0.0.1:0".into(),
        local_mode: true,
        concurrency: 8,
        shutdown_seconds: 8,
        ..Default::default()
    };
    config.region = Some("us-east-1".into());
    config.endpoint = std::env::var("AWS_ENDPOINT_URL_XRAY").ok();
    let _guard = xrayd::log::start(xrayd::config::LogLevel::Debug, std::io::stdout());
    let mode = if std::env::args().any(|a| a == "sandbox") {
        xrayd::daemon::Mode::Sandbox { demo: true }
    } else {
        xrayd::daemon::Mode::Service
    };
    let r = xrayd::daemon::run(&config, &Default::default(), mode);
    eprintln!("{r:?}");
}
