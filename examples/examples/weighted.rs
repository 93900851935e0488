//! Fair by weight, on the running kernel: `sudo cargo run --release --example weighted`.

#[cfg(feature = "kernel")]
fn main() -> qumun::Result<()> {
    let exit = qumun::builder("weighted").run(qumun_examples::weighted::Weighted::default())?;
    println!("{exit}");
    Ok(())
}

#[cfg(not(feature = "kernel"))]
fn main() {
    eprintln!("built without the feature `kernel`: there is nothing to run this on");
    std::process::exit(1);
}
