//! smoke
use qumun_bpf::*;
fn main(){ let l=loader::load(&loader::Options::default()); match l { Err(e)=>{println!("{e}"); std::process::exit(1)}, Ok(l)=>{ let a=l.attach(); match a { Err(e)=>println!("{e}"), Ok(a)=>{ 
 for i in 0..4 { std::thread::sleep(std::time::Duration::from_millis(500)); let t=a.totals(); println!("{i} {:?} mode {} ops {:?}", t, a.view().mode, probe::Probe::here().ops); if let Some(e)=a.exited(){println!("{:?} {}",e.reason,e.message); println!("{}",e.dump)} }
 let (e,l)=a.detach(); println!("{e:?}"); println!("{:?}",stats::ledgers(&l.totals())); } } } } }
