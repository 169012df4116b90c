use std::time::Duration;

use anyhow::Result;
use streamspace_testkit::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn echo() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(port)
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
    stream.write_all(b"x").await?;
    stream.read_u8().await
}

#[tokio::test]
async fn a_proxy_passes_cuts_refuses_and_falls_silent() -> Result<()> {
    let proxy = Proxy::to(echo().await?).await?;
    let address = ("127.0.0.1", proxy.port());
    let mut first = TcpStream::connect(address).await?;
    assert_eq!(ask(&mut first).await?, b'x');

    proxy.cut();
    assert!(ask(&mut first).await.is_err(), "a cut connection is over");
    let mut second = TcpStream::connect(address).await?;
    assert_eq!(ask(&mut second).await?, b'x', "new ones are served");

    proxy.silence();
    second.write_all(b"y").await?;
    let silence = timeout(Duration::from_millis(100), second.read_u8()).await;
    assert!(silence.is_err(), "a silent connection neither answers nor ends");
    proxy.restore();
    assert_eq!(second.read_u8().await?, b'y', "what was held back arrives");

    proxy.refuse();
    assert!(ask(&mut second).await.is_err());
    let refused = async { ask(&mut TcpStream::connect(address).await?).await };
    assert!(refused.await.is_err(), "nobody is let in");
    proxy.restore();
    assert_eq!(ask(&mut TcpStream::connect(address).await?).await?, b'x');
    Ok(())
}
