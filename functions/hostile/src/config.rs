//! Bindings of `wasi:config/store`, the proposal's draft that hosts implement today.

wit_bindgen::generate!({
    inline: "
        package edgeward:hostile;

        world configured {
            import wasi:config/store@0.2.0-rc.1;
        }

        package wasi:config@0.2.0-rc.1 {
            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }
        }
    ",
    generate_all,
});

pub(crate) use self::wasi::config::store::get_all;
