//! `/reach?port=`: what lies outside of the sandbox and can be reached without HTTP.

use wasi::filesystem::preopens::get_directories;
use wasi::http::types::ResponseOutparam;
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::ip_name_lookup::resolve_addresses;
use wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasi::sockets::tcp_create_socket::create_tcp_socket;
use wasi::sockets::udp_create_socket::create_udp_socket;

use crate::{query, reply};

/// One attempt a line: the number of open folders, then how each use of a socket on 127.0.0.1 ended.
pub(crate) fn reach(query: &str, out: ResponseOutparam) {
    let port = u16::try_from(query::number(query, "port", 80)).unwrap_or(80);
    let attempts = [
        format!("folders {}", get_directories().len()),
        format!("connect {:?}", connect(local(port))),
        format!("listen {:?}", listen(local(0))),
        format!("datagram {:?}", bind_datagram(local(0))),
        format!("lookup {:?}", look_up("localhost")),
    ];
    reply::text(out, 200, &(attempts.join("\n") + "\n"));
}

fn local(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (127, 0, 0, 1) })
}

fn connect(address: IpSocketAddress) -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), address)?;
    socket.subscribe().block();
    socket.finish_connect().map(drop)
}

fn listen(address: IpSocketAddress) -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), address)?;
    socket.finish_bind()?;
    socket.start_listen()?;
    socket.finish_listen()
}

fn bind_datagram(address: IpSocketAddress) -> Result<(), ErrorCode> {
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), address)?;
    socket.finish_bind()
}

fn look_up(name: &str) -> Result<(), ErrorCode> {
    let found = resolve_addresses(&instance_network(), name)?;
    found.subscribe().block();
    found.resolve_next_address().map(drop)
}
