//! First come, first served, on the running kernel: `sudo cargo run --example fifo`.

#[cfg(feature = "kernel")]
fn main() {
    // The kernel's part comes here: qumun::builder("fifo").run(Fifo::default()).
    let _ = qumun_examples::fifo::Fifo;
}

#[cfg(not(feature = "kernel"))]
fn main() {
    eprintln!("built without the feature `kernel`: there is nothing to run this on");
    std::process::exit(1);
}
