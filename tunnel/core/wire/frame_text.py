"""Writes frames as one line of text each, for the frame log. Of a stream's data only the length is shown."""

from __future__ import annotations

from tunnel.core.wire import frames as f


def frame_text(frame: f.Frame) -> str:
    """Returns a frame as a person reads it, such as `DATA 7 4096 bytes`, where 7 is the id of the stream."""
    match frame:
        case f.Data(stream_id, data):
            return f"DATA {stream_id} {len(data)} bytes"
        case f.Credit(stream_id, limit):
            return f"CREDIT {stream_id} up to {limit}"
        case f.Open():
            early = f" with {len(frame.early_data)} bytes" if frame.early_data else ""
            return (
                f"OPEN {frame.stream_id} {frame.target} for {frame.principal}{early},"
                f" within {frame.deadline_ms} ms, credit {frame.credit}, trace {frame.trace_id or '-'}"
            )
        case f.Accept(stream_id, resolved_address, credit):
            return f"ACCEPT {stream_id} {resolved_address or '-'}, credit {credit}"
        case f.Fin(stream_id):
            return f"FIN {stream_id}"
        case f.Reset(stream_id, code, text):
            return f"RESET {stream_id} {code.label}: {text}"
        case f.StopSending(stream_id, code):
            return f"STOP_SENDING {stream_id} {code.label}"
        case f.Ping(nonce):
            return f"PING {nonce}"
        case f.Pong(nonce, idle_silence_ms):
            return f"PONG {nonce}" + (f", may be silent for {idle_silence_ms} ms" if idle_silence_ms else "")
        case _:
            return f"GOAWAY {frame.code.label}: {frame.text}, come back after {frame.reconnect_after_ms} ms"
