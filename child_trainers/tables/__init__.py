"""Tables of measured children: their readers, and the task that looks rewards up."""
