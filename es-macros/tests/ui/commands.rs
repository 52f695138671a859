use es_core::Command;

#[derive(Command, Debug)]
#[command(key = account, kodec = Json)]
pub enum Key {
    Open { account: String },
    Close { acount: String },
    CloseAll,
}

#[derive(Command, Debug)]
pub enum Tuple {
    Deposit(u64),
    Withdraw(String, u64),
}

#[derive(Command, Debug)]
#[serde(tag = "kind")]
pub enum Names {
    #[command(name = "open")]
    Open,
    #[command(name = "open")]
    Reopen,
    #[serde(rename = "shut")]
    Close {
        #[command(name = "x")]
        r#type: String,
    },
}

#[derive(Command, Debug)]
pub enum Generic<T> {
    Open { owner: T },
}

#[derive(Command, Debug)]
pub struct NoEnum;

#[derive(Command)]
pub enum NoDebug {
    Open { owner: String },
}

fn main() {
    let _ = Key::CloseAll.name();
    let _ = Tuple::Deposit(1).name();
}
