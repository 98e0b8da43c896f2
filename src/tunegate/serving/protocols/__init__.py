"""How clients speak: pure functions between bytes and what they mean. Light: nothing here imports kserve."""
